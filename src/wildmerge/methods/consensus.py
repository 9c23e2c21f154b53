"""Consensus merging: keep the elements of a merged task vector that enough experts want.

Source: Wang et al., "Localizing Task Information for Improved Model Merging and Compression", ICML 2024,
arXiv 2405.07813. Everything is per element; TIES' trimming, too, is per tensor here.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from wildmerge.errors import Refusal
from wildmerge.methods.declaration import Count, Share, Threshold, about
from wildmerge.vectors import combining, elementwise, selection
from wildmerge.vectors.task_vectors import Rule, TaskVectors


@about(label="Consensus TA", source="Wang et al., ICML 2024, arXiv 2405.07813")
def consensus_ta(
    vectors: TaskVectors,
    *,
    mask_lambda: Threshold = 0.4,
    k: Count = 2,
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
) -> Rule:
    """Task Arithmetic where at least k experts want an element, nothing elsewhere.

    Expert i wants it if |D_i| > mask_lambda * |S - D_i|, S = sum_i D_i: untouched ones nobody wants.
    """
    n = _require(vectors, k)

    def rule(deltas: Tensor, at: slice) -> Tensor:
        total = elementwise.add_up(deltas)
        wanted = elementwise.count_wanted(deltas, total, mask_lambda)
        return total.mul_(lambda_ / n if scale == "mean" else lambda_).mul_(wanted >= k)

    return rule


@about(label="Consensus TIES", source="Wang et al., ICML 2024, arXiv 2405.07813")
def consensus_ties(
    vectors: TaskVectors,
    *,
    density: Share = 0.2,
    mask_lambda: Threshold = 0.4,
    k: Count = 2,
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
) -> Rule:
    """TIES where at least k experts want an element; S is TIES' sum, D_i is not trimmed."""
    ones = [1.0] * _require(vectors, k)
    kept = max(1, int(density * vectors.numel))
    cuts = selection.cuts(vectors, kept) if kept < vectors.numel else []

    def rule(deltas: Tensor, at: slice) -> Tensor:
        trimmed = deltas.clone()
        for cut, delta in zip(cuts, trimmed.unbind(), strict=False):
            cut.trim_(delta, at)
        total, voters = elementwise.elect(trimmed, ones)
        wanted = elementwise.count_wanted(deltas, total, mask_lambda)
        return combining.divide_(total, voters, ones, divisor).mul_(lambda_).mul_(wanted >= k)

    return rule


def _require(vectors: TaskVectors, k: int) -> int:
    """Return the number of experts; raises Refusal if k are asked for of fewer."""
    if k > len(vectors):
        raise Refusal(f"recipe: k: {k} of {len(vectors)} experts cannot agree; lower it")
    return len(vectors)
