"""Many comparisons at once: adjusted p-values over a named family."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from wildmerge.statistics.paired import Floats


def holm(p_values: Sequence[float]) -> Floats:
    """Adjust p-values so that one false claim among them is rare (family-wise error).

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979), 65-70.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    steps = np.arange(len(p), 0, -1) * p[order]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> Floats:
    """Adjust p-values so that few of the claims made are false (false discovery rate).

    Source: Y. Benjamini and Y. Hochberg, Journal of the Royal Statistical Society B 57 (1995), 289-300.
    """
    if not len(p_values):
        return np.zeros(0)
    return np.asarray(stats.false_discovery_control(np.asarray(p_values)), np.float64)
