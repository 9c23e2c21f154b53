"""What the singular values and vectors of n task vectors of one matrix say: ranks, shared directions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wildmerge.vectors import linalg
from wildmerge.vectors.task_vectors import TaskVectors

Array = NDArray[np.float64]

LEADING = 16
"""Directions of each expert that are compared with those of another, at most a quarter of all."""


@dataclass(frozen=True)
class Subspaces:
    """The spectra of n task vectors of one matrix.

    Attributes:
        shape: rows and columns of the matrix.
        effective_ranks: exp(entropy of the singular values), (n,).
        numerical_ranks: singular values above rounding of the stored weights, (n,).
        left: overlap of the leading left singular subspaces, (n, n); NaN where one expert has none.
        right: the same of the right ones, (n, n).
    """

    shape: tuple[int, int]
    effective_ranks: Array
    numerical_ranks: Array
    left: Array
    right: Array

    @property
    def chance(self) -> tuple[float, float]:
        """What `left` and `right` are on average for random subspaces."""
        rows, columns = self.shape
        return leading(self.shape) / rows, leading(self.shape) / columns


def leading(shape: tuple[int, ...]) -> int:
    """Return how many directions of a matrix are compared."""
    return max(1, min(LEADING, min(shape) // 4))


def decompose(vectors: TaskVectors) -> Subspaces:
    """Decompose every expert's task vector of a matrix, in float64."""
    n, count = len(vectors), leading(vectors.shape)
    effective, numerical = np.zeros(n), np.zeros(n)
    bases: list[tuple[Tensor, Tensor]] = []
    for i in range(n):
        found = linalg.spectrum(vectors[i].double())
        effective[i] = linalg.effective_rank(found.sigma)
        numerical[i] = linalg.rank(found.sigma, vectors)
        left, _, right = found.leading(min(count, int(numerical[i])))
        bases.append((left, right))
    left_overlap, right_overlap = (np.full((n, n), np.nan) for _ in range(2))
    for i in range(n):
        for k in range(i):
            common = min(len(bases[i][0]), len(bases[k][0]))
            if common:
                pairs = [(a[:common], b[:common]) for a, b in zip(bases[i], bases[k], strict=True)]
                left_overlap[i, k], right_overlap[i, k] = (linalg.overlap(*p) for p in pairs)
    rows, columns = vectors.shape
    return Subspaces((rows, columns), effective, numerical, left_overlap, right_overlap)


def work(shape: tuple[int, ...]) -> float:
    """Return about how many operations a decomposition takes: Gram matrix and its eigenvectors."""
    small, large = min(shape), max(shape)
    return 2.0 * small**2 * large + 10.0 * small**3
