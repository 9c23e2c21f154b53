"""How task vectors, or what a method keeps of them, become one update: `mix` all, or `elect` a sign.

Both take a chunk (n, c), which they may overwrite, and return a chunk (c,) of the update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from wildmerge.vectors import elementwise
from wildmerge.vectors.elementwise import add_up
from wildmerge.vectors.task_vectors import TaskVectors

Scale = Literal["mean", "sum"]
Divisor = Literal["agreeing", "n", "sum"]
_SMALLEST_SUM = 1e-7
"""Sums of magnitudes below this are not rescaled, as in mergekit."""


def mix(deltas: Tensor, weights: list[float] | None, scale: Scale, factor: float) -> Tensor:
    """Return the weighted sum over the experts, times a factor.

    Args:
        deltas: the task vectors, (n, c) float32.
        weights: one an expert; None: 1 each.
        scale: "mean" divides by the sum of the weights, "sum" does not.
        factor: of the whole update.
    """
    w = weights or [1.0] * len(deltas)
    total = sum(w) if scale == "mean" else 1.0
    factors = torch.tensor([factor * x / total for x in w], device=deltas.device)
    return add_up(deltas.mul_(factors[:, None]))


def elect(deltas: Tensor, weights: list[float] | None, divisor: Divisor, factor: float) -> Tensor:
    """Return TIES' combination: per element, of the entries whose sign is that of the weighted sum.

    A sum of zero elects plus; zeros agree with nobody.

    Args:
        deltas: the task vectors, (n, c) float32.
        weights: one an expert, none negative; None: 1 each.
        divisor: what the weighted sum of these entries is divided by: the weights that "agree", all
            of them ("n") or nothing ("sum").
        factor: of the whole update.
    """
    w = weights or [1.0] * len(deltas)
    return divide_(*elementwise.elect(deltas, w), w, divisor).mul_(factor)


def divide_(total: Tensor, voters: Tensor, weights: list[float], divisor: Divisor) -> Tensor:
    """Divide, in place, the sum of the entries that agree (c,) as `elect` says.

    Args:
        total: the sum.
        voters: the sum of their weights, (c,); overwritten.
        weights: one an expert.
        divisor: as for `elect`.
    """
    if divisor == "agreeing":
        smallest = min((x for x in weights if x > 0), default=1.0)
        total.div_(voters.clamp_(min=smallest))  # nothing agrees: 0, not 0 / 0
    elif divisor == "n":
        total.div_(sum(weights))
    return total


def l1_factors(
    vectors: TaskVectors, keep: Callable[[Tensor, slice], Tensor], whole_rows: bool = False
) -> Tensor:
    """Return what gives each task vector, after `keep`, the sum of magnitudes that it had, (n, 1).

    Args:
        vectors: the task vectors of one tensor.
        keep: zeroes entries of a chunk (n, c), in place, and returns it.
        whole_rows: it needs whole rows of the last axis.
    """
    before = torch.zeros(2, len(vectors), dtype=torch.float64)
    after = torch.zeros_like(before)
    for at, deltas in vectors.chunks(whole_rows):
        elementwise.add_moments(deltas, before)
        elementwise.add_moments(keep(deltas, at), after)
    whole, kept = before[0], after[0]
    some = (whole >= _SMALLEST_SUM) & (kept >= _SMALLEST_SUM)
    factors = torch.where(some, whole / kept, 1.0)
    return factors[:, None].to(vectors.device, torch.float32)
