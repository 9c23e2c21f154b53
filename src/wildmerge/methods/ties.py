"""TIES: trim each task vector, elect a sign per element, average the entries that agree with it.

Source: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
arXiv 2306.01708. Everything is per tensor. Trimming keeps exactly k = int(density * numel) entries (at
least one) of the largest magnitude; among equal magnitudes the lowest flat index stays.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from wildmerge.merging import selection
from wildmerge.merging.task_vectors import Rule, TaskVectors, add_up
from wildmerge.methods import Share, Weights


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
    w = weights or [1.0] * len(vectors)
    kept = max(1, int(density * vectors.numel))
    cuts = selection.cuts(vectors, kept) if kept < vectors.numel else []

    def rule(deltas: Tensor, at: slice) -> Tensor:
        for cut, delta in zip(cuts, deltas.unbind(), strict=False):
            cut.trim_(delta, at)
        total, voters = _elect(deltas, w)
        if divisor == "agreeing":
            total.div_(voters.clamp_(min=min(w)))  # nothing agrees: 0, not 0 / 0
        elif divisor == "n":
            total.div_(sum(w))
        return total.mul_(lambda_)

    return rule


def _elect(deltas: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Sum the entries of the elected sign: that of the weighted sum of all of them, + for zero.

    Of numbers with sum T and sum of magnitudes A, those of T's sign sum to (T + sign(T) A) / 2; it
    loses no accuracy, because they are the larger part of A.

    Args:
        deltas: the entries, (n, c); overwritten.
        weights: of the rows, positive.

    Returns:
        The sum of the entries that agree, and the sum of their weights, both (c,) float32.
    """
    votes = _votes(deltas, weights)
    if set(weights) != {1.0}:
        deltas.mul_(torch.tensor(weights, device=deltas.device)[:, None])
    total, size = add_up(deltas), add_up(deltas.abs_())
    elected = torch.copysign(torch.ones_like(total), total)
    plus, minus = votes.float().unbind()
    voters = (plus + minus).addcmul_(elected, plus.sub_(minus)).div_(2)
    return total.addcmul_(elected, size).div_(2), voters


def _votes(deltas: Tensor, weights: list[float]) -> Tensor:
    """Return the weights of the positive and of the negative entries, (2, c)."""
    counting = deltas.device.type == "cpu" and set(weights) == {1.0} and len(weights) < 256
    dtype = torch.uint8 if counting else torch.float32
    votes = torch.zeros(2, deltas.shape[1], device=deltas.device, dtype=dtype)
    if counting:  # ten times faster than by torch
        plus, minus = votes.numpy()
        mask = np.empty_like(plus, np.bool_)
        for row in deltas.numpy():
            plus += np.greater(row, 0, out=mask).view(np.uint8)
            minus += np.less(row, 0, out=mask).view(np.uint8)
    else:
        for row, weight in zip(deltas.unbind(), weights, strict=True):
            votes[0] += weight * (row > 0)
            votes[1] += weight * (row < 0)
    return votes
