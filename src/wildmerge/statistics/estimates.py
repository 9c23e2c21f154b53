"""Numbers that describe one set of values: spreads, standard errors, correlations, and "above".

Accuracies are shares between 0 and 1; a number "in points" is in percentage points, so 0.512 against
0.500 is +1.2 points. Means are `statistics.fmean`, which sums without rounding error: the order of
the values does not matter.
"""

import math
from collections.abc import Sequence
from statistics import stdev

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

SAME_ACCURACY = 1e-9
"""Two means of the same benchmark scores, added in another order, differ by less than this; one item
more or less in 100,000 items over 100 benchmarks differs by more."""


def above(values: ArrayLike, references: ArrayLike) -> NDArray[np.bool_]:
    """Return which accuracies (0 to 1) are strictly above their references; equal ones are not.

    Args:
        values: accuracies, of any shape.
        references: the accuracies to beat, of the same shape, or one for all.
    """
    return np.subtract(values, references) > SAME_ACCURACY


def sample_deviation(values: Sequence[float]) -> float:
    """Return the sample standard deviation (ddof = 1): subsets are a draw from all subsets.

    Args:
        values: one number a subset.

    Returns:
        The deviation in the values' unit; NaN for fewer than two values, where it is unknown.
    """
    return stdev(values) if len(values) > 1 else math.nan


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
