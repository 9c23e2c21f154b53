"""The only place with singular value decompositions, polar factors and numerical rank.

Everything is computed in float64: a float32 SVD is off by up to 3e-5, more than the methods may be.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildmerge.task_vectors import TaskVectors


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the thin SVD (U, sigma descending, V^T) of a matrix, in float64."""
    return torch.linalg.svd(matrix.double(), full_matrices=False)


def polar(matrix: Tensor) -> Tensor:
    """Return the orthogonal polar factor U V^T of a float64 matrix U diag(sigma) V^T."""
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


def tolerance(sigma: Tensor, vectors: TaskVectors) -> float:
    """Return the singular value below which a direction is rounding of the stored weights.

    max(rows, columns) * eps(storage dtype) * sigma_1; nothing is above the tolerance of a zero matrix.
    """
    return max(vectors.shape) * vectors.epsilon * float(sigma[0])


def rank(sigma: Tensor, vectors: TaskVectors) -> int:
    """Return how many singular values stand above the tolerance."""
    return int((sigma > tolerance(sigma, vectors)).sum())


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
    return u[:, kept]
