"""Studies that score a sample of items: which items, how many of each benchmark, what they say of all.

No study samples yet. These are the statistics of those that will: bases and experts answer all items,
merged models the same sample of them, and what the others answered to the rest helps.

    theta = (1/K) sum_k [mean_s d + w'(mean_all x - mean_s x)]
    V = K^-2 sum_k {(1 - f)[c s_e^2/n + 2/(K n^2)] + s_d^2/N + 2/(K N^2)}

Of each benchmark n of N items were sampled, f = n/N. x are two features that are known of all items:
the base's answer and the mean of the merged experts' answers. Their slopes w are pooled over the
benchmarks, e = d - w'x, and c = (sum n - K)/(sum n - K - 2). The last two terms of V are the draw of the
benchmark itself: without them, V is of what all of its items would say.

Source: W. G. Cochran, Sampling Techniques (3rd ed., 1977): chapter 5 for the allocation, chapter 7
for the regression estimator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wildmerge.statistics.paired import (
    Clusters,
    Estimate,
    Floats,
    added_variance,
    satterthwaite,
    variance_of_mean,
)

Indices = NDArray[np.intp]

DISCORDANCE = 0.15
"""Share of items that two models answer differently, while nothing of the study is known."""
FEWEST = 50
"""Items that are scored of each benchmark, or all where it has fewer."""
ENOUGH_TO_FIT = 40
"""Items beyond one a benchmark from which on slopes are fitted."""
RIDGE = 1e-6
"""Share of the features' sum of squares added to each, for features that say the same."""


# --- which items ------------------------------------------------------------------------------------


def item_order(
    subtasks: ArrayLike, generator: np.random.Generator, clusters: Clusters | None = None
) -> Indices:
    """Return a random order of a benchmark's items, of which the first n are a sample of n.

    A larger sample keeps the smaller one. Each item has the chance n/N, and subtasks keep their shares:
    the r-th of the M items of a subtask, at random, gets the place (r + u)/M with one u a subtask.

    Args:
        subtasks: the subtask of each item, (items,).
        generator: of the order; seed it by the study's seed and the benchmark.
        clusters: the question of each item, (items,), where one is asked more than once: its items
            follow each other (see `first_items`), in the subtask of the first of them.
    """
    kinds = np.asarray(subtasks)
    items = np.arange(len(kinds)) if clusters is None else np.asarray(clusters)
    _, first, unit = np.unique(items, return_index=True, return_inverse=True)
    places = np.empty(len(first))
    for kind in np.unique(kinds):
        members = np.flatnonzero(kinds[first] == kind)
        ranks = generator.permutation(len(members)) + generator.random()
        places[members] = ranks / len(members)
    rank = np.argsort(np.argsort(places, kind="stable"))
    return np.argsort(rank[unit], kind="stable")


def first_items(order: Indices, count: int, clusters: Clusters | None = None) -> Indices:
    """Return the first items of an order, and the rest of the last one's question.

    Args:
        order: see `item_order`.
        count: how many, at least.
        clusters: as for the order.
    """
    if clusters is not None:
        while 0 < count < len(order) and clusters[order[count]] == clusters[order[count - 1]]:
            count += 1
    return order[:count]


# --- how many ---------------------------------------------------------------------------------------


def allocate(
    items: ArrayLike,
    tokens: ArrayLike,
    *,
    budget: float | None = None,
    target: float | None = None,
    discordance: float = DISCORDANCE,
) -> NDArray[np.int64]:
    """Return how many items of each benchmark to score: n proportional to 1/sqrt(tokens an item).

    Among all choices of the same tokens this one has the smallest standard error, and the other way
    round, if all benchmarks' differences scatter alike.

    Args:
        items: of each benchmark, (K,).
        tokens: that an item of each takes, (K,).
        budget: tokens of a model, which the choice just reaches.
        target: the standard error of the mean difference, as a share, which it just reaches.
        discordance: share of items that two models answer differently.

    Returns:
        (K,), each at least 50 or all; all of all where budget or target ask for more than there is.

    Raises:
        ValueError: neither or both of budget and target.
    """
    if (budget is None) == (target is None):
        raise ValueError("name either a budget of tokens or a target standard error")
    there, cost = np.asarray(items, np.float64), np.asarray(tokens, np.float64)

    def chosen(scale: float) -> Floats:
        return np.clip(np.ceil(scale / np.sqrt(cost)), np.minimum(FEWEST, there), there)

    def enough(scale: float) -> bool:
        counts = chosen(scale)
        if budget is not None:
            return bool(counts @ cost >= budget)
        return expected_stderr(counts, discordance) <= (target or 0)

    most = float((there * np.sqrt(cost)).max())
    scale = _smallest(enough, most) if enough(most) else most
    return chosen(scale).astype(np.int64)


def expected_stderr(counts: ArrayLike, discordance: float = DISCORDANCE) -> float:
    """Return the standard error that a mean difference over benchmarks will have, as a share.

    Args:
        counts: items scored of each benchmark, (K,).
        discordance: share of items that two models answer differently.
    """
    counts = np.asarray(counts, np.float64)
    return math.sqrt(discordance * float((1 / counts).sum())) / len(counts)


def _smallest(holds: Callable[[float], bool], high: float) -> float:
    """Return the smallest number up to `high`, for which a condition holds that then keeps holding."""
    low = 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


# --- what the sample says of all --------------------------------------------------------------------


class Sampled(NamedTuple):
    """What a sample says of the difference.

    Attributes:
        all_items: on all items of these benchmarks.
        other_items: on other items of their kind, as `paired.difference` says it of all.
    """

    all_items: Estimate
    other_items: Estimate


def regression_estimate(
    differences: Sequence[Floats],
    features: Sequence[Floats],
    samples: Sequence[Indices],
    clusters: Sequence[Clusters | None] | None = None,
) -> Sampled:
    """Estimate a mean difference over benchmarks from a sample, helped by what is known of all items.

    Over several subsets of experts give each item's mean over them: the estimate is linear in it.

    Args:
        differences: per benchmark, of the sampled items, (n,).
        features: per benchmark, the base's answers and the mean of the merged experts', (2, N).
        samples: per benchmark, which items were sampled, (n,).
        clusters: per benchmark, the cluster of each of all items, (N,), or None; see
            `paired.difference`.

    Returns:
        Estimates without help where fewer than 40 items a study are left after one a benchmark, or
        where the features are the same for all items.
    """
    count = len(differences)
    of_all = clusters or [None] * count
    groups = [g if g is None else g[s] for g, s in zip(of_all, samples, strict=True)]
    known = [x[:, s] for x, s in zip(features, samples, strict=True)]
    slopes, factor = _slopes(differences, known, groups)
    values, within, beyond, dfs = [], [], [], []
    for d, x, seen, group, all_groups in zip(
        differences, features, known, groups, of_all, strict=True
    ):
        n, there = len(d), x.shape[1]
        values.append(d.mean() + slopes @ (x.mean(1) - seen.mean(1)))
        residual, df = variance_of_mean(d - slopes @ seen, group)
        drawn = factor * residual + added_variance(n, count, group)
        within.append((1 - n / there) * drawn)
        spread = variance_of_mean(d, group)[0] * n / there
        beyond.append(spread + added_variance(there, count, all_groups))
        dfs.append(df)
    value = float(np.mean(values))
    sampled, both = np.array(within), np.array(within) + np.array(beyond)
    return Sampled(*(Estimate(value, *satterthwaite(v, np.array(dfs))) for v in (sampled, both)))


def _slopes(
    differences: Sequence[Floats], known: Sequence[Floats], groups: Sequence[Clusters | None]
) -> tuple[Floats, float]:
    """Return the slopes of both features, pooled over benchmarks, and what fitting them costs, c."""
    units = [
        len(d) if g is None else len(np.unique(g)) for d, g in zip(differences, groups, strict=True)
    ]
    free = sum(units) - len(units)
    centred = [x - x.mean(1, keepdims=True) for x in known]
    squares = np.sum([x @ x.T for x in centred], axis=0)
    if free < ENOUGH_TO_FIT or not squares.trace() > 0:
        return np.zeros(2), 1.0
    products = np.sum(
        [x @ (d - d.mean()) for x, d in zip(centred, differences, strict=True)], axis=0
    )
    ridge = RIDGE * squares.trace() * np.eye(2)
    return np.linalg.solve(squares + ridge, products), free / (free - 2)
