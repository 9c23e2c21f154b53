"""Estimates of one thing and their uncertainty: spreads, standard errors, shares, correlations.

Accuracies are shares between 0 and 1; a number "in points" is in percentage points, so 0.512 against
0.500 is +1.2 points. Means are `statistics.fmean`, which sums without rounding error: the order of
the values does not matter.
"""

import math
from collections.abc import Sequence
from statistics import stdev

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def sample_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (ddof = 1): subsets are a draw from all subsets.

    Args:
        values: one number a subset.

    Returns:
        The deviation in the values' unit; NaN for fewer than two values, where it is unknown.
    """
    return stdev(values) if len(values) > 1 else math.nan


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share, which holds at 0 %, 100 % and few trials.

    Args:
        successes: number of successes.
        trials: number of trials, at least 1.

    Returns:
        Lower and upper end, both between 0 and 1.

    Raises:
        ValueError: if the counts are impossible.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    low, high = stats.binomtest(successes, trials).proportion_ci(method="wilson")
    return float(low), float(high)


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


def paired_stderr(answers: ArrayLike, reference: ArrayLike) -> float:
    """Return the standard error of (mean score of some models - score of a reference).

    All models answer the same items, so the difference is taken item by item: most of the luck of
    the draw of items cancels.

    Args:
        answers: the models' values of the items of one benchmark, (n_models, n_items).
        reference: the reference's values of the same items, (n_items,).

    Returns:
        The standard error as a share; NaN for a single item, where it is unknown.
    """
    if np.size(reference) < 2:
        return math.nan
    differences = np.asarray(answers, dtype=np.float64).mean(axis=0) - np.asarray(reference)
    return float(np.std(differences, ddof=1) / math.sqrt(len(differences)))


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
    return float(stats.spearmanr(first, second).statistic)
