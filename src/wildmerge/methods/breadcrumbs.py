"""Model Breadcrumbs: drop the largest outliers and the small entries of each task vector, then combine.

Source: Davari and Belilovsky, "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
ECCV 2024, arXiv 2312.06795. Everything is per tensor, of N entries: by magnitude, the first
T = min(int(gamma N), N - k) are dropped, the next k = int(density N) kept, the rest dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from wildmerge.methods.declaration import Share, Threshold, Weights, about
from wildmerge.vectors import combining, selection
from wildmerge.vectors.task_vectors import TaskVectors, Update


@about(label="Breadcrumbs", source="Davari and Belilovsky, ECCV 2024, arXiv 2312.06795")
def breadcrumbs(
    vectors: TaskVectors,
    *,
    density: Share = 0.15,
    gamma: Threshold = 0.01,
    rescale: Literal["none", "l1"] = "none",
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> Update:
    """Mean or sum of the task vectors without their outliers and small entries, times lambda."""
    keep = _masking(vectors, density, gamma, rescale)
    return lambda deltas, at: combining.mix(keep(deltas, at), weights, scale, lambda_)


@about(label="Breadcrumbs + TIES", source="Davari and Belilovsky, ECCV 2024, arXiv 2312.06795")
def breadcrumbs_ties(
    vectors: TaskVectors,
    *,
    density: Share = 0.15,
    gamma: Threshold = 0.01,
    rescale: Literal["none", "l1"] = "none",
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> Update:
    """Breadcrumbs combined as TIES does: elect a sign, average what agrees with it."""
    keep = _masking(vectors, density, gamma, rescale)
    return lambda deltas, at: combining.elect(keep(deltas, at), weights, divisor, lambda_)


def _masking(
    vectors: TaskVectors, density: float, gamma: float, rescale: str
) -> Callable[[Tensor, slice], Tensor]:
    """Return what is done to each chunk (n, c) of the task vectors; a density of 1 keeps everything."""
    size = vectors.numel
    kept = int(density * size)
    dropped = min(int(gamma * size), size - kept)
    if kept == size:
        return lambda deltas, at: deltas
    if kept == 0:
        return lambda deltas, at: deltas.zero_()
    ends = [end for end in (dropped, dropped + kept) if 0 < end < size]
    found = dict(zip(ends, selection.cuts_at(vectors, ends), strict=True))
    largest, all_kept = found.get(dropped), found.get(dropped + kept)

    def keep(deltas: Tensor, at: slice) -> Tensor:
        for i, delta in enumerate(deltas):
            if largest:
                outliers = delta.clone()
                largest[i].trim_(outliers, at)
                delta.sub_(outliers)  # exact: an entry minus itself, or minus zero
            if all_kept:
                all_kept[i].trim_(delta, at)
        return deltas

    if rescale == "none":
        return keep
    factors = combining.l1_factors(vectors, keep)
    return lambda deltas, at: keep(deltas, at).mul_(factors)
