"""The best of several candidates without the winner's curse.

Whoever chooses the best expert by the items on which a merged model is then compared with it, compares
with an expert whose luck was part of the choice. Here one half of the items chooses and the other half
compares, and the other way round, over many random halves of 20 groups of items; the variance is a
delete-one-group jackknife.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wildmerge.statistics.paired import DISCORDANT, Clusters, Estimate, Floats, cluster_sums

GROUPS = 20
SPLITS = 50


def against_best(
    candidates: Sequence[Floats],
    model: Sequence[Floats],
    generator: np.random.Generator,
    clusters: Sequence[Clusters | None] | None = None,
) -> Estimate:
    """Estimate a model's mean difference to the candidate that other items would choose.

    Args:
        candidates: per benchmark, the candidates' item scores, (candidates, items).
        model: per benchmark, the model's item scores, (items,).
        generator: of groups and halves; seed it from the comparison's name.
        clusters: see `paired.difference`; a cluster is never divided.
    """
    sums, counts = _grouped(candidates, model, clusters or [None] * len(model), generator)
    halves = np.zeros((SPLITS, GROUPS), bool)
    for row in halves:
        row[generator.permutation(GROUPS)[: GROUPS // 2]] = True
    value = _compare_halves(sums, counts, halves)
    left_out = np.array([_without(g, sums, counts, halves) for g in range(GROUPS)])
    spread = (GROUPS - 1) / GROUPS * float(((left_out - left_out.mean()) ** 2).sum())
    count = len(model)
    floor = sum(DISCORDANT / (count * len(scores) ** 2) for scores in model) / count**2
    return Estimate(value, spread + floor, GROUPS - 1)


def _without(group: int, sums: Floats, counts: Floats, halves: NDArray[np.bool_]) -> float:
    """Return the comparison without one group of items."""
    kept = np.arange(GROUPS) != group
    return _compare_halves(sums[kept], counts[kept], halves[:, kept])


def _grouped(
    candidates: Sequence[Floats],
    model: Sequence[Floats],
    clusters: Sequence[Clusters | None],
    generator: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return sums over random groups of items, (groups, candidates + 1, benchmarks), and their sizes."""
    sums = np.zeros((GROUPS, len(candidates[0]) + 1, len(model)))
    counts = np.zeros((GROUPS, len(model)))
    for k, (others, own) in enumerate(zip(candidates, model, strict=True)):
        totals, sizes = cluster_sums(np.vstack([others, own]), clusters[k])
        group = (generator.permutation(len(sizes)) + generator.integers(GROUPS)) % GROUPS
        counts[:, k] = np.bincount(group, sizes, GROUPS)
        for row, scores in enumerate(totals):
            sums[:, row, k] = np.bincount(group, scores, GROUPS)
    return sums, counts


def _compare_halves(sums: Floats, counts: Floats, halves: NDArray[np.bool_]) -> float:
    """Choose by one half and compare on the other, both ways, and average over the splits."""
    one = np.tensordot(halves.astype(float), sums, 1)
    other = sums.sum(0) - one
    one_count = halves @ counts
    other_count = counts.sum(0) - one_count
    row = np.arange(len(halves))
    by_one, by_other = _best(one, one_count), _best(other, other_count)
    gains = other[row, -1] - other[row, by_one] + one[row, -1] - one[row, by_other]
    return float((gains / counts.sum(0)).mean())


def _best(sums: Floats, counts: Floats) -> NDArray[np.intp]:
    """Return the candidate of the best mean over benchmarks in each split; of equals the first.

    A half may lack all items of a small benchmark; the mean is over the others.
    """
    there = counts > 0
    means = np.divide(sums, counts[:, None], out=np.zeros_like(sums), where=there[:, None])
    return np.asarray(means[:, :-1].sum(2).argmax(1), np.intp)
