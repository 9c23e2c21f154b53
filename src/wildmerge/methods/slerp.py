"""SLERP: the point between two models on the great circle through them.

Source: Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985, of a whole tensor as one
vector. With the angle theta between X_1 and X_2: a X_1 + b X_2, a = sin((1 - t) theta) / sin(theta),
b = sin(t theta) / sin(theta); norms are not touched.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from wildmerge.errors import Refusal
from wildmerge.methods.declaration import Threshold, about
from wildmerge.vectors.angles import gram, weighted_sum
from wildmerge.vectors.task_vectors import Facts, Rule, TaskVectors

_SHORT = 1e-8
"""Weights of a norm up to this have no direction, as in mergekit."""


@about(label="SLERP", source="Shoemake, SIGGRAPH 1985", pair=True)
def slerp(
    vectors: TaskVectors,
    *,
    t: Threshold = 0.5,
    space: Literal["weights", "task_vectors"] = "weights",
    linear_above: Threshold = 0.9995,
) -> tuple[Rule, Facts]:
    """Spherical interpolation between two models, or between their task vectors.

    Args:
        vectors: the task vectors of one tensor; n = 2.
        t: where between them: 0 is the first, 1 the second.
        space: what X_1 and X_2 are: the experts' weights, or their task vectors.
        linear_above: the |cosine| above which, as where one has no direction, (1 - t) X_1 + t X_2 is
            taken. Experts of one base are nearly always above the default in `weights`.

    Returns:
        The update, and the facts: the `cosine` (0 without directions), and whether it was `linear`.
    """
    if len(vectors) != 2:
        raise Refusal(f"slerp: it merges two experts, not {len(vectors)}")
    products = gram(vectors, space)
    norms = np.sqrt(products.diagonal())
    short = norms.min() <= (_SHORT if space == "weights" else 0.0)
    cosine = 0.0 if short else float(np.clip(products[0, 1] / norms.prod(), -1, 1))
    linear = bool(short or abs(cosine) > linear_above)
    factors = np.array([1 - t, t])
    if not linear:
        theta = np.arccos(cosine)
        factors = np.sin(factors * theta) / np.sin(theta)
    return weighted_sum(vectors, factors, space), {"cosine": cosine, "linear": linear}
