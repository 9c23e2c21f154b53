"""WUDI: the update that interferes least with the experts' task vectors, in closed form.

Source: Cheng et al., "Whoever Started the Interference Should End It: Guiding Data-Free Model Merging
via Task Vectors", ICML 2025, arXiv 2503.08099. Matrices only; every other tensor gets the mean.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from wildmerge.methods.declaration import about
from wildmerge.vectors import linalg
from wildmerge.vectors.linalg import product
from wildmerge.vectors.task_vectors import TaskVectors, Update, mean


@about(label="WUDI (closed)", family="subspace", source="Cheng et al., ICML 2025, arXiv 2503.08099")
def wudi(vectors: TaskVectors, *, lambda_: float = 1.0) -> Update:
    """The least-squares solution of WUDI's objective, which its authors approach by Adam.

    M minimises sum_i |(M - D_i) D_i^T|^2 / |D_i|^2: with C = sum_i D_i^T D_i / |D_i|^2 and
    B = sum_i D_i D_i^T D_i / |D_i|^2, M = B C^+, of the least norm; the update is lambda * M. What the
    authors' Adam finds before it is stopped depends on the size of the task vectors; this form scales
    with it. Directions in which no expert moved get nothing.

    Args:
        vectors: the task vectors of one tensor; those that are zero are left out.
        lambda_: the factor of the matrix update (other tensors get the plain mean).

    Returns:
        The update.
    """
    if not vectors.is_matrix:
        return mean(vectors)
    sizes = [float(vectors[i].double().norm()) for i in range(len(vectors))]
    moved = [i for i, size in enumerate(sizes) if size > 0]
    if not moved:
        return torch.zeros(vectors.shape, device=vectors.device)
    rows, columns = vectors.shape
    units = (vectors[i].double() / sizes[i] for i in moved)
    solve = _by_rows if len(moved) * rows < columns else _by_columns
    return (lambda_ * solve(units, [sizes[i] for i in moved])).float()


def _by_columns(units: Iterable[Tensor], sizes: list[float]) -> Tensor:
    """Return B C^+ of task vectors D_i / |D_i| and their norms, one of them in memory at a time."""
    numerator = gram = torch.zeros(())
    for unit, size in zip(units, sizes, strict=True):
        own = product(unit.mT, unit)
        numerator, gram = numerator + size * product(unit, own), gram + own
    return linalg.divide(numerator, gram)


def _by_rows(units: Iterable[Tensor], sizes: list[float]) -> Tensor:
    """Return the same from the Gram matrix of all rows X, where they are fewer than the columns.

    B C^+ = Y (X X^T)^+ X, where Y holds |D_i| X_i X_i^T side by side.
    """
    stacked = list(units)
    beside = torch.cat([size * product(x, x.mT) for x, size in zip(stacked, sizes, strict=True)], 1)
    x = torch.cat(stacked)
    return product(linalg.divide(beside, product(x, x.mT)), x)
