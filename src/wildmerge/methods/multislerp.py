"""Multi-SLERP: the direction of the mean of unit vectors, at the mean of their lengths.

Source: Goddard, 2025, goddard.blog/posts/multislerp-wow-what-a-cool-idea, and mergekit's `multislerp`,
whose step in the tangent space at the weighted mean is zero and left out here.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from wildmerge.methods.declaration import Weights, about
from wildmerge.vectors.angles import gram, weighted_sum
from wildmerge.vectors.task_vectors import Facts, Sum, TaskVectors, Update

_BALANCED = 1e-7
"""A mean of unit vectors that is shorter has no direction: float64 cannot tell its square from zero."""


@about(label="Multi-SLERP", source="Goddard, 2025, mergekit")
def multislerp(
    vectors: TaskVectors,
    *,
    space: Literal["weights", "task_vectors"] = "task_vectors",
    weights: Weights | None = None,
    normalize_weights: bool = True,
) -> tuple[Update, Facts]:
    """Mean of the directions, as long as the task vectors (or weights) are on average.

    M = sum_i w_i X_i / |X_i|, without those of length zero: result (sum_i w_i |X_i|) M / |M|.

    Args:
        vectors: the task vectors of one tensor.
        space: what the X_i are: the task vectors, or the experts' weights.
        weights: one weight an expert, shape (n,).
        normalize_weights: divide them by their sum.

    Returns:
        The update, and the facts: a warning where directions cancel, so that M is zero. Then the update
        is the weighted sum of two experts, and nothing of more.
    """
    w = np.array(weights or [1.0] * len(vectors))
    if normalize_weights:
        w /= w.sum()
    products = gram(vectors, space)
    norms = np.sqrt(products.diagonal())
    units = np.divide(w, norms, out=np.zeros_like(w), where=norms > 0)
    length = np.sqrt(max(units @ products @ units, 0.0))
    if length >= _BALANCED:
        factors = units * (w @ norms) / length
        return weighted_sum(vectors, factors, space), {}
    warning = {"warning": "the experts' directions cancel, so Multi-SLERP has none"}
    update = weighted_sum(vectors, w, space) if len(w) == 2 else Sum(0.0)
    return update, warning if norms.any() else {}
