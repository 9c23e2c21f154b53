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
from scipy.special import ndtr

from wildmerge.statistics.paired import DISCORDANT, Clusters, Estimate, Floats, difference

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
    tried = len(differences[0])
    found = difference([d.mean(0) for d in differences], clusters)
    means = np.mean([d.mean(1) for d in differences], axis=0)
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
    enough = estimate.tried >= min(ENOUGH, subsets)
    return estimate if enough else of_tried(estimate)


def share_above(
    differences: Sequence[Floats], subsets: int, generator: np.random.Generator
) -> Floats:
    """Draw from the posterior of the share of all subsets whose true difference is above 0.

    True differences are normal with mean mu (flat) and deviation tau (uniform); the observed ones
    scatter about them with the covariance that shared items give. Subsets that were not tried are drawn
    from the same normal.

    Args:
        differences: per benchmark, (tried subsets, items).
        subsets: how many there are in all.
        generator: of the draws; seed it from the cell's name.

    Returns:
        Draws of the share, (4000,): quantiles of them (method "inverted_cdf") are its interval.
    """
    observed = np.mean([d.mean(1) for d in differences], axis=0)
    tried = len(observed)
    values, basis = np.linalg.eigh(covariance(differences))
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


def covariance(differences: Sequence[Floats]) -> Floats:
    """Return the covariance of the tried subsets' mean differences that the draw of items makes.

    Args:
        differences: per benchmark, (tried subsets, items).

    Returns:
        (tried subsets, tried subsets).
    """
    count = len(differences)
    parts = [
        np.atleast_2d(np.cov(d)) / d.shape[1] + DISCORDANT / (count * d.shape[1] ** 2)
        for d in differences
    ]
    return np.asarray(sum(parts) / count**2, np.float64)
