"""Karcher mean: the point on the sphere whose squared angles to the experts have the smallest sum.

Source: the Riemannian centre of mass of the experts' directions, as merging method in arXiv 2603.04972.
Everything follows from the inner products of the experts: m = sum_j e_j u_j with u_j = W_j / |W_j|.
"""

from __future__ import annotations

import numpy as np

from wildmerge.methods.declaration import Weights, about
from wildmerge.vectors.angles import Array, gram, weighted_sum
from wildmerge.vectors.task_vectors import Facts, Rule, TaskVectors

_OPPOSITE = np.pi - 1e-6
"""An angle from which on an expert pulls in no definite direction."""


@about(label="Karcher mean", source="arXiv 2603.04972")
def karcher(
    vectors: TaskVectors,
    *,
    weights: Weights | None = None,
    max_iter: int = 10,
    tol: float = 1e-5,
) -> tuple[Rule, Facts]:
    """Mean of the experts' directions on the sphere, at the mean of their lengths.

    Args:
        vectors: the task vectors of one tensor.
        weights: one weight an expert, shape (n,).
        max_iter: most steps towards the mean.
        tol: norms, angles and steps up to this count as zero. Without any norm above it, the update is
            the weighted mean of the task vectors.

    Returns:
        The update, and the facts: a warning where an expert lies opposite to the mean and is left out.
    """
    a = np.array(weights or [1.0] * len(vectors))
    a /= a.sum()
    products = gram(vectors, "weights")
    norms = np.sqrt(products.diagonal())
    directed = norms > tol
    if not directed.any():
        return weighted_sum(vectors, a, "weights"), {}
    units = np.where(directed, norms, 1.0)
    cosines = (products / units / units[:, None])[np.ix_(directed, directed)]
    shares = a[directed] / a[directed].sum()
    direction, opposite = _mean_direction(cosines, shares, max_iter, tol)
    factors = np.zeros_like(a)
    factors[directed] = (a @ norms) * direction / units[directed]
    warning = {"warning": "an expert lies opposite to the Karcher mean, and is left out"}
    return weighted_sum(vectors, factors, "weights"), warning if opposite else {}


def _mean_direction(cosines: Array, a: Array, steps: int, tol: float) -> tuple[Array, bool]:
    """Return the mean of unit vectors in terms of them, and whether one lies opposite to it."""
    length = np.sqrt(max(float(a @ cosines @ a), 0.0))
    e = a / length if length >= tol else np.eye(len(a))[0]
    opposite = False
    for _ in range(steps):
        d = np.clip(cosines @ e, -1, 1)
        theta = np.arccos(d)
        opposite = bool((theta > _OPPOSITE).any())
        pulling = (theta >= tol) & (theta <= _OPPOSITE)
        pull = np.where(pulling, a * theta / np.where(pulling, np.sin(theta), 1.0), 0.0)
        tangent = pull - (pull @ d) * e
        step = np.sqrt(max(float(tangent @ cosines @ tangent), 0.0))
        if step < tol:
            break
        e = np.cos(step) * e + np.sin(step) / step * tangent
        e /= np.sqrt(e @ cosines @ e)
    return e, opposite
