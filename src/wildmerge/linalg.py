"""The only place with singular value decompositions, polar factors and numerical rank.

Everything is computed in float64: a float32 SVD is off by up to 3e-5, more than the methods may be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildmerge.task_vectors import TaskVectors


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin SVD (U, sigma descending, V^T) of a matrix, in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return u, s, vh


def polar(matrix: Tensor, *, drop_null: bool = False) -> Tensor:
    """Return the orthogonal polar factor U V^T of a float64 matrix U diag(sigma) V^T.

    With `drop_null`, directions whose sigma is zero to float32 rounding are left out, so that the
    factor is unique for rank-deficient matrices too.
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    if drop_null and len(s):
        kept = s > max(matrix.shape) * torch.finfo(torch.float32).eps * s[0]
        u, vh = u[:, kept], vh[kept]
    product: Tensor = u @ vh
    return product


def tolerance(sigma: Tensor, vectors: TaskVectors, summed: int = 1) -> float:
    """Return the singular value at or below which a direction is rounding of the stored weights.

    For float32 storage max(rows, columns) * eps * sigma_1. With 16 bits that bound exceeds sigma_1
    from 128 rows on and would call every direction null, so there it is the expected largest singular
    value of the rounding errors themselves: (sqrt(rows) + sqrt(columns)) times their root mean square.

    Args:
        sigma: singular values, descending, of a task vector or of a sum of them.
        vectors: the task vectors they came from.
        summed: how many task vectors were added up.
    """
    rows, columns = vectors.shape
    if vectors.epsilon <= torch.finfo(torch.float32).eps:
        return max(rows, columns) * vectors.epsilon * float(sigma[0])
    return float((rows**0.5 + columns**0.5) * vectors.rounding * summed**0.5)


def rank(sigma: Tensor, vectors: TaskVectors, summed: int = 1) -> int:
    """Return how many singular values stand above the tolerance."""
    return int((sigma > tolerance(sigma, vectors, summed)).sum())


def energy_within(update: Tensor, left: Tensor, right: Tensor) -> float:
    """Return the share of |update|_F^2 that lies in span(left) x span(right)."""
    energy = float(update.square().sum())
    if energy == 0:
        return 1.0
    inside = _basis(left).T @ update @ _basis(right)
    return float(inside.square().sum()) / energy


def _basis(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of the columns."""
    u, s, _ = torch.linalg.svd(columns, full_matrices=False)
    kept = s > max(columns.shape) * torch.finfo(s.dtype).eps * (s[0] if len(s) else 0)
    basis: Tensor = u[:, kept]
    return basis
