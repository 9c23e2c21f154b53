"""For methods that go by angles: inner products of whole tensors in float64, and weighted sums.

Fine-tuned weights lie at angles of a thousandth, whose cosines differ from 1 by a millionth: inner
products of weights need float64 throughout. Those of task vectors get the same.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildmerge.vectors import elementwise
from wildmerge.vectors.elementwise import add_up
from wildmerge.vectors.task_vectors import Rule, TaskVectors

Space = Literal["weights", "task_vectors"]
Array = NDArray[np.float64]
_ROUNDING = 1e-13
"""A multiple of the base up to which there is none: what float64 leaves of factors that sum to 1."""


def gram(vectors: TaskVectors, space: Space) -> Array:
    """Return the inner products of the experts' weights or task vectors, (n, n), in one pass."""
    products = torch.zeros(len(vectors), len(vectors), dtype=torch.float64)
    for at, deltas in vectors.chunks():
        base = vectors.base_chunk(at)
        origin = base if space == "weights" else torch.zeros_like(base)
        elementwise.add_inner_products(deltas, origin, products)
    lower = products.tril()
    found: Array = (lower + lower.tril(-1).T).numpy()
    return found


def weighted_sum(vectors: TaskVectors, factors: Array, space: Space) -> Rule:
    """Return the update that leads to sum_i f_i W_i, or that is sum_i f_i D_i.

    With W_i = W0 + D_i, the first is (sum_i f_i - 1) W0 + sum_i f_i D_i.
    """
    rows = torch.from_numpy(factors).to(vectors.device, torch.float32)[:, None]
    of_base = float(factors.sum()) - 1 if space == "weights" else 0.0
    if abs(of_base) < _ROUNDING:
        return lambda deltas, at: add_up(deltas.mul_(rows))

    def rule(deltas: Tensor, at: slice) -> Tensor:
        return add_up(deltas.mul_(rows)).add_(vectors.base_chunk(at), alpha=of_base)

    return rule
