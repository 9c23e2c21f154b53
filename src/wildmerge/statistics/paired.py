"""Differences of models that answered the same items, with intervals that hold at few items.

A benchmark's differences are an array d of shape (items,): the score of one model minus that of the
other, item by item, as shares. The estimand is the unweighted mean over K benchmarks, which are fixed;
their items are a draw from each benchmark's source.

    theta = (1/K) sum_k mean_i d_ki            V = K^-2 sum_k v_k
    v_k = s_k^2 / n_k + 2 / (K n_k^2)          df = (sum v_k)^2 / sum(v_k^2 / (n_k - 1))

The second term of v_k is two discordant items shared by the whole study: without it, an interval from
few discordant items is far too narrow (of no width where all answers agree).

Source of the degrees of freedom: F. E. Satterthwaite, Biometrics Bulletin 2 (1946), 110-114. With
clusters: the sandwich variance of a mean times G / (G - 1), as statsmodels computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Clusters = NDArray[np.int64]

LEVEL = 0.95
FEW_CLUSTERS = 50
"""With fewer, clusters of unlike sizes count as the smaller number that their sizes amount to."""
DISCORDANT = 2.0
"""Items answered differently that are added to the variance of the whole study."""


@dataclass(frozen=True)
class Estimate:
    """An estimated mean difference, in shares, and what its interval is made of.

    Attributes:
        value: the estimate.
        items: variance from the draw of items.
        df: degrees of freedom of `items`.
        subsets: variance from the draw of subsets: 0 where all were tried, NaN where it is unknown.
        tried: how many subsets the mean is over; 1 for a single model.
    """

    value: float
    items: float
    df: float
    subsets: float = 0.0
    tried: int = 1

    @property
    def stderr(self) -> float:
        """The standard error, from items and subsets."""
        return math.sqrt(self.items + self.subsets)

    def half_width(self, level: float = LEVEL) -> float:
        """Return half of the width of the interval at this level, see `half_widths`."""
        return float(half_widths([self], level)[0])

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the interval, cut to the possible differences, -1 to 1."""
        half = self.half_width(level)
        return max(-1.0, self.value - half), min(1.0, self.value + half)

    def p_value(self) -> float:
        """Return the two-sided p-value of no difference, see `p_values`."""
        return float(p_values([self])[0])


def half_widths(estimates: Sequence[Estimate], level: float | Floats = LEVEL) -> Floats:
    """Return half of the width of each estimate's interval.

    The two parts keep quantiles of their own: t(df)^2 items + t(tried - 1)^2 subsets.

    Args:
        estimates: the estimates, (n,).
        level: of the intervals: one for all, or (n,).
    """
    q = np.broadcast_to((1 + np.asarray(level)) / 2, len(estimates))
    items, subsets, df, tried = (
        np.array([getattr(estimate, name) for estimate in estimates], np.float64)
        for name in ("items", "subsets", "df", "tried")
    )
    squares = stats.t.ppf(q, df) ** 2 * items
    drawn = ~(subsets <= 0)  # unknown, too: its interval is unknown
    squares[drawn] += stats.t.ppf(q[drawn], tried[drawn] - 1) ** 2 * subsets[drawn]
    return np.asarray(np.sqrt(squares), np.float64)


def p_values(estimates: Sequence[Estimate]) -> Floats:
    """Return the two-sided p-value of each: the level at which its interval just reaches 0."""
    distance = np.abs([estimate.value for estimate in estimates])
    items, df = (np.array([getattr(e, name) for e in estimates]) for name in ("items", "df"))
    with np.errstate(divide="ignore", invalid="ignore"):  # no variance, no difference
        p = np.asarray(2 * stats.t.sf(distance / np.sqrt(items), df), np.float64)
    drawn = np.flatnonzero([not estimate.subsets <= 0 for estimate in estimates])
    chosen = [estimates[i] for i in drawn]
    low, high = np.full(len(drawn), math.log(1e-12)), np.zeros(len(drawn))
    for _ in range(
        50 if len(drawn) else 0
    ):  # half-widths fall as p rises: halve the range of log p
        middle = (low + high) / 2
        wide = half_widths(chosen, 1 - np.exp(middle)) > distance[drawn]
        low, high = np.where(wide, middle, low), np.where(wide, high, middle)
    p[drawn] = np.exp((low + high) / 2)
    return p


def difference(
    differences: Sequence[Floats], clusters: Sequence[Clusters | None] | None = None
) -> Estimate:
    """Estimate the mean difference of two models over benchmarks.

    Args:
        differences: per benchmark, the differences of its items, (items,).
        clusters: per benchmark, the cluster of each item, (items,), where one question is asked more
            than once; None where none is.

    Raises:
        ValueError: no benchmark, or one without items.
    """
    if not differences or any(not len(d) for d in differences):
        raise ValueError("a difference needs benchmarks with items")
    count = len(differences)
    groups = clusters or [None] * count
    found = [item_variance(d, count, g) for d, g in zip(differences, groups, strict=True)]
    variances, dfs = (np.array(part) for part in zip(*found, strict=True))
    value = float(np.mean([d.mean() for d in differences]))
    return Estimate(value, *satterthwaite(variances, dfs))


def satterthwaite(variances: Floats, dfs: Floats) -> tuple[float, float]:
    """Return the variance of a mean over benchmarks, and its degrees of freedom.

    Args:
        variances: of each benchmark's mean, (K,).
        dfs: degrees of freedom of each variance, (K,).
    """
    total = float(variances.sum())
    if total == 0:  # known without error
        return 0.0, float(dfs.sum())
    df = total**2 / float((variances**2 / dfs).sum())
    return total / len(variances) ** 2, max(1.0, df)


def item_variance(
    differences: Floats, benchmarks: int, clusters: Clusters | None = None
) -> tuple[float, float]:
    """Return the variance v_k of one benchmark's mean difference, and its degrees of freedom.

    Args:
        differences: (items,).
        benchmarks: how many the study has, K.
        clusters: the cluster of each item, (items,), or None.
    """
    spread, df = variance_of_mean(differences, clusters)
    return spread + added_variance(len(differences), benchmarks, clusters), df


def variance_of_mean(values: Floats, clusters: Clusters | None = None) -> tuple[float, float]:
    """Return the variance of the items' mean value, and its degrees of freedom; 0 for one item.

    Args:
        values: (items,).
        clusters: the cluster of each item, (items,), or None.
    """
    n = len(values)
    if clusters is None:
        return float(values.var(ddof=1)) / n if n > 1 else 0.0, max(n - 1.0, 1.0)
    totals, sizes = cluster_sums(values - values.mean(), clusters)
    count = len(sizes)
    spread = float(totals @ totals) / n**2 * count / (count - 1) if count > 1 else 0.0
    return spread, max(degrees(sizes), 1.0)


def added_variance(items: int, benchmarks: int, clusters: Clusters | None = None) -> float:
    """Return what the study's two added discordant items make of one benchmark's variance.

    Args:
        items: how many the benchmark has.
        benchmarks: how many the study has, K.
        clusters: the cluster of each item, (items,), or None.
    """
    sizes = np.ones(1) if clusters is None else np.unique(clusters, return_counts=True)[1]
    size = float(sizes @ sizes) / float(
        sizes.sum()
    )  # of the cluster that an item is in, on average
    return DISCORDANT * size / (benchmarks * items * items)


def degrees(sizes: Floats) -> float:
    """Return the degrees of freedom of a variance over clusters of these sizes."""
    squares = sizes**2
    effective = float(squares.sum() ** 2 / (squares**2).sum())
    return (effective if len(sizes) < FEW_CLUSTERS else len(sizes)) - 1


def cluster_sums(values: Floats, clusters: Clusters | None) -> tuple[Floats, Floats]:
    """Return the sums of the items' values over each cluster, and the number of items in each.

    Args:
        values: (..., items).
        clusters: the cluster of each item, (items,); None: every item is one of its own.

    Returns:
        Sums, (..., clusters), and sizes, (clusters,).
    """
    if clusters is None:
        return np.asarray(values, np.float64), np.ones(values.shape[-1])
    _, group = np.unique(clusters, return_inverse=True)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    starts = np.concatenate([[0], sizes.cumsum()[:-1]])
    sums = np.add.reduceat(np.asarray(values, np.float64)[..., order], starts, axis=-1)
    return sums, sizes.astype(np.float64)
