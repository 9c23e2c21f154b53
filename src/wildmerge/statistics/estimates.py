"""The statistics behind the study's tables: shares, differences, spreads and their uncertainty.

Pure functions of plain numbers, without pandas. Accuracies are shares between 0 and 1; a
difference "in points" is in percentage points, so 0.512 against 0.500 is +1.2 points.
"""

import math
from collections.abc import Sequence

# Two means of the same benchmark scores, added in another order, differ by less than this; one item
# more or less in 100,000 items over 100 benchmarks differs by more.
SAME_ACCURACY = 1e-9
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def mean(values: Sequence[float]) -> float:
    """Return the arithmetic mean, summed without rounding error, so that order does not matter.

    Args:
        values: at least one number.

    Raises:
        ValueError: if there are no values.
    """
    if not values:
        raise ValueError("the mean of no values is undefined")
    return math.fsum(values) / len(values)


def sample_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (ddof = 1): subsets are a draw from all subsets.

    Args:
        values: one number a subset.

    Returns:
        The deviation in the values' unit; NaN for fewer than two values, where it is unknown.
    """
    if len(values) < 2:
        return math.nan
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def share_above(values: Sequence[float], reference: float) -> float:
    """Return the share of values strictly above a reference; equal accuracy is not above.

    Args:
        values: accuracies, one a subset, at least one.
        reference: the accuracy to beat.
    """
    return mean([float(value - reference > SAME_ACCURACY) for value in values])


def mean_difference_points(values: Sequence[float], reference: float) -> float:
    """Return the mean of (value - reference), in percentage points.

    Args:
        values: accuracies (0 to 1), one a subset, at least one.
        reference: the accuracy they are compared with (0 to 1).
    """
    return 100.0 * mean([value - reference for value in values])


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a share, which stays honest at 0 %, 100 % and few trials.

    Args:
        successes: number of successes.
        trials: number of trials, at least 1.
        z: normal quantile; the default gives a 95 % interval.

    Returns:
        Lower and upper end, both between 0 and 1.

    Raises:
        ValueError: if the counts are impossible.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"{successes} successes in {trials} trials are impossible")
    share = successes / trials
    scale = 1 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def stderr_of_mean(stderrs: Sequence[float]) -> float:
    """Return the standard error of an unweighted mean over benchmarks with independent items.

    Args:
        stderrs: the standard error of each benchmark's score, at least one.

    Returns:
        sqrt(sum of squares) / number of benchmarks.

    Raises:
        ValueError: if there are no benchmarks.
    """
    if not stderrs:
        raise ValueError("the mean of no benchmarks is undefined")
    return math.hypot(*stderrs) / len(stderrs)


def combined_stderr(*stderrs: float) -> float:
    """Return the standard error of a sum or difference of independent estimates.

    An unknown part (NaN) counts as 0: it is not known to add anything.
    """
    return math.hypot(*(value for value in stderrs if not math.isnan(value)))


def within_noise(difference: float, stderr: float, z: float = Z_95) -> bool:
    """Say whether a difference is too small to tell from 0 at the 95 % level."""
    return abs(difference) <= z * stderr


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation, with mean ranks for ties.

    Args:
        first: n numbers.
        second: n numbers, paired with `first`.

    Returns:
        A number between -1 and 1; NaN for fewer than three pairs or a constant side.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} values cannot be paired with {len(second)}")
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return math.nan
    a, b = _centred_ranks(first), _centred_ranks(second)
    product = math.fsum(x * y for x, y in zip(a, b, strict=True))
    return product / (math.hypot(*a) * math.hypot(*b))


def _centred_ranks(values: Sequence[float]) -> list[float]:
    """Return each value's mean rank minus the mean of all ranks."""
    below = [sum(other < value for other in values) for value in values]
    equal = [sum(other == value for other in values) for value in values]
    return [low + (ties - len(values)) / 2 for low, ties in zip(below, equal, strict=True)]
