"""TIES: trim each task vector, elect a sign per element, average the entries that agree with it.

Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
arXiv 2306.01708. Everything is per tensor. Trimming keeps exactly k = int(density * numel) entries (at
least one) of the largest magnitude; among equal magnitudes the lowest flat index stays.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from wildmerge.methods.declaration import Share, Weights, about
from wildmerge.vectors import combining, selection
from wildmerge.vectors.task_vectors import Rule, TaskVectors


@about(
    label="TIES",
    family="weight-space",
    source="Yadav et al., NeurIPS 2023, arXiv 2306.01708",
    presets={"text": {"divisor": "n"}},
    versioned=True,
)
def ties(
    vectors: TaskVectors,
    *,
    density: Share = 0.1,
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> Rule:
    """Trim, elect sign, and average the task vectors that agree.

    Args:
        vectors: the task vectors of one tensor.
        density: share of each task vector's entries that survives trimming, in (0, 1].
        divisor: what the sum of agreeing entries is divided by: the weights that "agree" (as
            published in TIES), "n" (all weights, as Eq. 3 of the study is printed) or nothing ("sum").
        lambda_: the factor of the whole update.
        weights: one weight an expert, shape (n,).

    Returns:
        An elementwise rule.
    """
    kept = max(1, int(density * vectors.numel))
    cuts = selection.cuts(vectors, kept) if kept < vectors.numel else []

    def rule(deltas: Tensor, at: slice) -> Tensor:
        for cut, delta in zip(cuts, deltas.unbind(), strict=False):
            cut.trim_(delta, at)
        return combining.elect(deltas, weights, divisor, lambda_)

    return rule
