"""Is one accuracy above another, and is their difference more than noise: the only rules for both."""

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildmerge.statistics.estimates import sample_deviation, wilson_interval

# Two means of the same benchmark scores, added in another order, differ by less than this; one item
# more or less in 100,000 items over 100 benchmarks differs by more.
SAME_ACCURACY = 1e-9
Z_95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution
GAIN, LOSS, NOISE = "gain", "loss", "noise"


def above(values: ArrayLike, references: ArrayLike) -> NDArray[np.bool_]:
    """Return which accuracies (0 to 1) are strictly above their references; equal ones are not.

    Args:
        values: accuracies, of any shape.
        references: the accuracies to beat, of the same shape, or one for all.
    """
    return np.subtract(values, references) > SAME_ACCURACY


def half_width(stderr: ArrayLike) -> NDArray[np.float64]:
    """Return the half-width of the 95 % interval of an estimate with this standard error."""
    return Z_95 * np.asarray(stderr, dtype=np.float64)


def verdicts(differences: ArrayLike, stderrs: ArrayLike) -> NDArray[np.str_]:
    """Return what each difference is: a gain or a loss beyond noise, or within noise.

    Args:
        differences: differences, of any shape and in any unit.
        stderrs: their standard errors, in the same shape and unit; an unknown one (NaN) leaves the
            difference within noise.

    Returns:
        "gain", "loss" or "noise" for each, by the two-sided 95 % level.
    """
    limits = half_width(stderrs)
    gained, lost = np.greater(differences, limits), np.less(differences, -limits)
    return np.where(gained, GAIN, np.where(lost, LOSS, NOISE))


def mean_difference_points(values: Sequence[float], reference: float) -> float:
    """Return the mean of (value - reference), in percentage points.

    Args:
        values: accuracies (0 to 1), one a subset, at least one.
        reference: the accuracy they are compared with (0 to 1).
    """
    return 100.0 * fmean(value - reference for value in values)


def stderr_over_subsets(items: float, values: Sequence[float]) -> float:
    """Return the standard error of a mean over subsets: the draw of items joined with that of subsets.

    Args:
        items: the standard error from the draw of items, as a share; NaN leaves the result unknown.
        values: accuracies (0 to 1), one a subset; a single one says nothing about the spread.
    """
    spread = sample_deviation(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return math.hypot(items, spread)


def share_above(count: int, subsets: int) -> tuple[float, float, float]:
    """Return the share of subsets above a reference and its 95 % interval, in per cent.

    Args:
        count: subsets above.
        subsets: all subsets; of none, the share is unknown (NaN).
    """
    if not subsets:
        return math.nan, math.nan, math.nan
    low, high = wilson_interval(count, subsets)
    return 100 * count / subsets, 100 * low, 100 * high


def average_over_bases(values: Sequence[float], stderrs: Sequence[float]) -> tuple[float, float]:
    """Return the unweighted mean over bases and a standard error that is not too small.

    The bases answer the same items, so their errors go together in a way that is not known; the
    error of their mean is at most the mean of their errors.

    Args:
        values: a difference for each base.
        stderrs: its standard error for each base.
    """
    return fmean(values), fmean(stderrs)
