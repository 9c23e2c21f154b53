"""A method at one size, over subsets of the experts: the mean, and the share of subsets above.

D_k of shape (subsets, items) holds, for one benchmark, the difference of each merged model to its
reference item by item. S of the C = C(E, n) subsets were drawn, uniformly and without replacement, so
that the draw's variance is B = (1 - S/C) s_S^2 / S whatever the overlap of the subsets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats
from scipy.special import ndtr

from wildmerge.statistics.paired import (
    DISCORDANT,
    Clusters,
    Estimate,
    Floats,
    cluster_sums,
    difference,
)

ENOUGH = 5
"""Subsets from which on an interval for all subsets says something: t(1) is 12.7, t(2) 4.3."""
_DRAWS, _GRID = 4000, 60


def subset_mean(
    differences: Sequence[Floats], subsets: int, clusters: Sequence[Clusters | None] | None = None
) -> Estimate:
    """Estimate the mean difference over all subsets of these experts.

    Args:
        differences: per benchmark, (tried subsets, items).
        subsets: how many there are in all, C.
        clusters: see `paired.difference`.

    Returns:
        The estimate; `subsets` of it is NaN where one subset of several was tried, which says nothing
        about the others.
    """
    means = np.mean([d.mean(1) for d in differences], axis=0)
    return from_means([d.mean(0) for d in differences], means, subsets, clusters)


def from_means(
    differences: Sequence[Floats],
    means: Floats,
    subsets: int,
    clusters: Sequence[Clusters | None] | None = None,
) -> Estimate:
    """Estimate the same from each item's mean over subsets and each subset's mean over items.

    Args:
        differences: per benchmark, the mean over tried subsets, (items,).
        means: of the tried subsets, over items and benchmarks, (tried,).
        subsets: how many there are in all, C.
        clusters: see `paired.difference`.
    """
    tried = len(means)
    found = difference(differences, clusters)
    if tried > 1:
        spread = (1 - tried / subsets) * float(means.var(ddof=1)) / tried
    else:
        spread = 0.0 if subsets == 1 else math.nan
    return replace(found, subsets=spread, tried=tried)


def of_tried(estimate: Estimate) -> Estimate:
    """Return the same estimate as one of the subsets that were tried alone."""
    return replace(estimate, subsets=0.0)


def printed(estimate: Estimate, subsets: int) -> Estimate:
    """Return the estimate whose interval is worth printing: of all subsets, or of those tried."""
    return estimate if enough(estimate.tried, subsets) else of_tried(estimate)


def enough(tried: int, subsets: int) -> bool:
    """Say whether so many subsets of all say something about the others."""
    return tried >= min(ENOUGH, subsets)


def share_above(
    differences: Sequence[Floats],
    subsets: int,
    generator: np.random.Generator,
    clusters: Sequence[Clusters | None] | None = None,
) -> Floats:
    """Draw from the posterior of the share of all subsets whose true difference is above 0.

    True differences are normal with mean mu (flat) and deviation tau (uniform); the observed ones
    scatter about them with the covariance that shared items give. Subsets that were not tried are drawn
    from the same normal.

    Args:
        differences: per benchmark, (tried subsets, items).
        subsets: how many there are in all.
        generator: of the draws; seed it from the cell's name.
        clusters: see `paired.difference`.

    Returns:
        Draws of the share, (4000,): quantiles of them (method "inverted_cdf") are its interval.
    """
    observed = np.mean([d.mean(1) for d in differences], axis=0)
    tried = len(observed)
    values, basis = np.linalg.eigh(covariance(differences, clusters))
    values = np.maximum(values, 1e-15)
    seen, ones = basis.T @ observed, basis.T @ np.ones(tried)
    spread = float(observed.std(ddof=1)) if tried > 1 else 0.0
    taus = 3 * max(spread, math.sqrt(values.max())) * (np.arange(_GRID) + 0.5) / _GRID
    weights = 1 / (values[:, None] + taus**2)  # (subsets, grid)
    precision = (ones[:, None] ** 2 * weights).sum(0)
    centre = (ones * seen) @ weights / precision
    residual = seen[:, None] - ones[:, None] * centre
    log = 0.5 * (np.log(weights).sum(0) - np.log(precision) - (weights * residual**2).sum(0))
    chances = np.exp(log - log.max())
    point = generator.choice(_GRID, _DRAWS, p=chances / chances.sum())
    tau = taus[point]
    mu = centre[point] + generator.standard_normal(_DRAWS) / np.sqrt(precision[point])
    kept = tau**2 * weights[:, point]
    start = ones[:, None] * mu
    noise = np.sqrt(kept * values[:, None]) * generator.standard_normal((tried, _DRAWS))
    truth = basis @ (start + kept * (seen[:, None] - start) + noise)
    above = (truth > 0).sum(0)
    if subsets > tried:
        above = above + generator.binomial(subsets - tried, ndtr(mu / tau))
    return np.asarray(above / subsets, np.float64)


def covariance(
    differences: Sequence[Floats], clusters: Sequence[Clusters | None] | None = None
) -> Floats:
    """Return the covariance of the tried subsets' mean differences that the draw of items makes.

    Args:
        differences: per benchmark, (tried subsets, items).
        clusters: see `paired.difference`.

    Returns:
        (tried subsets, tried subsets).
    """
    count = len(differences)
    total = np.zeros((len(differences[0]),) * 2)
    for d, group in zip(differences, clusters or [None] * count, strict=True):
        sums, sizes = cluster_sums(d - d.mean(1, keepdims=True), group)
        n, drawn = d.shape[1], len(sizes)
        spread = sums @ sums.T / n**2 * drawn / (drawn - 1) if drawn > 1 else 0.0
        total += spread + DISCORDANT * float(sizes @ sizes) / n / (count * n**2)
    return np.asarray(total / count**2, np.float64)


def of_other_experts(
    estimate: Estimate, differences: Sequence[Floats], *, subsets: int, n: int, experts: int
) -> float:
    """Return the half-width of the 95 % interval of the mean, were these experts a draw of their kind.

    V = A + v [n / (E - n) + (1 - S/C) / S], where v is what subsets differ by beyond their items; exact
    where experts add up.

    Args:
        estimate: of the mean over all subsets.
        differences: per benchmark, (tried subsets, items).
        subsets: how many there are in all, C.
        n: experts in a subset.
        experts: E.

    Returns:
        The half-width, as a share; NaN where it says nothing: all experts are merged, or fewer than
        five subsets were tried.
    """
    tried, count = estimate.tried, len(differences)
    if n >= experts or tried < ENOUGH:
        return math.nan
    own = np.mean([d.mean(1) for d in differences], axis=0).var(ddof=1)
    scatter = [(d - d.mean(0)).var(1).mean() / d.shape[1] for d in differences]
    luck = sum(scatter) * tried / (tried - 1) / count**2
    drawn = max(0.0, float(own - luck)) * (n / (experts - n) + (1 - tried / subsets) / tried)
    of_items = float(stats.t.ppf(0.975, estimate.df)) ** 2 * estimate.items
    return math.sqrt(of_items + float(stats.t.ppf(0.975, min(tried, experts) - 1)) ** 2 * drawn)
