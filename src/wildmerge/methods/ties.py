"""TIES: trim each task vector, elect a sign per element, average the entries that agree with it.

Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
arXiv 2306.01708. Everything is per tensor. Trimming keeps exactly k = int(density * numel) entries (at
least one) of the largest magnitude; among equal magnitudes the lowest flat index stays.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wildmerge import selection
from wildmerge.methods import Share, Weights
from wildmerge.task_vectors import Rule, TaskVectors


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
    w = torch.tensor(weights or [1.0] * len(vectors), device=vectors.device)[:, None]
    kept = max(1, int(density * vectors.numel))
    cuts = selection.cuts(vectors, kept) if kept < vectors.numel else None

    def rule(deltas: Tensor, at: slice) -> Tensor:
        trimmed = deltas if cuts is None else cuts.trim(deltas, at)
        weighted = trimmed * w
        elected = torch.where(weighted.sum(0) >= 0, 1.0, -1.0)
        agrees = weighted * elected > 0  # zeros never agree
        total = torch.where(agrees, weighted, 0.0).sum(0)
        if divisor == "agreeing":
            shared = (agrees * w).sum(0)
            total = total / torch.where(shared > 0, shared, 1.0)
        elif divisor == "n":
            total = total / w.sum()
        return lambda_ * total

    return rule
