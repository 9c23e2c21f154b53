"""SCE: select where the experts differ most, weight them by energy, erase what opposes the majority.

Source: Wan et al., "FuseChat: Knowledge Fusion of Chat Models", 2024, arXiv 2408.07990. Everything is
per tensor; weights and variances are float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from wildmerge.methods.declaration import Share, about
from wildmerge.vectors import elementwise, selection
from wildmerge.vectors.task_vectors import Facts, Rule, TaskVectors


@about(label="SCE", source="Wan et al., 2024, arXiv 2408.07990")
def sce(
    vectors: TaskVectors,
    *,
    select_topk: Share = 0.1,
    select: Literal["update", "weights"] = "update",
    weight_floor: float = 0.0,
    lambda_: float = 1.0,
) -> tuple[Rule, Facts]:
    """Average of what agrees with the majority where the experts differ, weighted by energy.

    Args:
        vectors: the task vectors of one tensor.
        select_topk: share of the elements of nonzero variance over the experts that is selected.
        select: "update" zeroes all other elements, "weights" only leaves them out of the weights.
        weight_floor: sums of the experts' mean squares below it give equal weights.
        lambda_: the factor of the whole update.

    Returns:
        The update, and the facts: the `weights` of the experts.
    """
    keep = _selecting(vectors, select_topk)
    moments = torch.zeros(2, len(vectors), dtype=torch.float64)
    for at, deltas in vectors.chunks():
        elementwise.add_moments(keep(deltas, at), moments)
    energy = moments[1] / vectors.numel
    equal = float(energy.sum()) < weight_floor or not energy.any()
    weights = torch.full_like(energy, 1 / len(vectors)) if equal else energy / energy.sum()
    rows = weights.to(vectors.device, torch.float32)
    smallest = float(rows[rows > 0].min())

    def rule(deltas: Tensor, at: slice) -> Tensor:
        used = keep(deltas, at) if select == "update" else deltas
        total, voters = elementwise.erase(used, rows)
        voters.clamp_(min=smallest)  # nothing agrees: 0, not 0 / 0
        return total.div_(voters).mul_(lambda_)

    return rule, {"weights": weights.tolist()}


def _selecting(vectors: TaskVectors, share: float) -> Callable[[Tensor, slice], Tensor]:
    """Return what zeroes, in place, the elements of a chunk (n, c) that are not selected."""
    if share == 1:
        return lambda deltas, at: deltas
    spread = selection.Derived(vectors, elementwise.variance)
    differ = sum(int(torch.count_nonzero(row)) for _, row in spread.chunks())
    if not int(share * differ):
        return lambda deltas, at: deltas.zero_()
    (cut,) = selection.cuts(spread, int(share * differ))

    def keep(deltas: Tensor, at: slice) -> Tensor:
        selected = elementwise.variance(deltas)
        cut.trim_(selected, at)
        return deltas.mul_(selected.sign_())

    return keep
