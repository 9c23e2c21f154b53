"""How n task vectors lie to each other: norms, cosines and signs, from sums over all of their weights.

The sums are float64, over blocks in their order: they depend on no chunk and no thread. Sums of tensors
add up to those of a layer, of a kind of tensors and of the whole model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wildmerge.vectors.elementwise import BLOCK
from wildmerge.vectors.task_vectors import TaskVectors

Array = NDArray[np.float64]


@dataclass
class Sums:
    """Sums over the weights of some tensors, of the task vectors d_1 ... d_n and their base w.

    Attributes:
        weights: how many there are.
        base: sum of w^2.
        products: sums of d_i d_k, (n, n).
        signs: for each two experts, (4, n, n): weights that they move to opposite sides, weights that
            both move, and the sums of |d_i| + |d_k| over each of these. Lower triangle.
        signs_of_all: the same of all experts, (4,): weights that some move up and others down, weights
            that at least two move, and the sums of all |d_i| over each of these.
    """

    weights: int
    base: float
    products: Array
    signs: Array
    signs_of_all: Array

    @classmethod
    def nothing(cls, n: int) -> Sums:
        """Return the sums over no weights."""
        return cls(0, 0.0, np.zeros((n, n)), np.zeros((4, n, n)), np.zeros(4))

    def add(self, other: Sums) -> None:
        """Add the sums over other weights."""
        self.weights += other.weights
        self.base += other.base
        self.products += other.products
        self.signs += other.signs
        self.signs_of_all += other.signs_of_all

    def keep(self, experts: list[int]) -> None:
        """Forget the experts that are not listed."""
        self.products = self.products[np.ix_(experts, experts)]
        self.signs = self.signs[:, experts][:, :, experts]

    @property
    def norms(self) -> Array:
        """L2 norms of the task vectors, (n,)."""
        return np.sqrt(self.products.diagonal())

    @property
    def base_norm(self) -> float:
        """L2 norm of the base's weights."""
        return float(np.sqrt(self.base))

    @property
    def cosines(self) -> Array:
        """The cosine of every two task vectors, (n, n); NaN where one is zero."""
        scale = np.asarray(np.outer(self.norms, self.norms), np.float64)
        return _share(self.products, scale).clip(-1, 1)

    @property
    def sign_conflicts(self) -> Array:
        """Share of the weights which both experts move that they move to opposite sides, (n, n)."""
        return _share(self.signs[0], self.signs[1])

    @property
    def sign_conflicts_by_size(self) -> Array:
        """The same with each weight counted |d_i| + |d_k| times, (n, n)."""
        return _share(self.signs[2], self.signs[3])

    @property
    def sign_conflict_of_all(self) -> float:
        """Share of the weights which several experts move that they do not all move to one side."""
        return float(_share(self.signs_of_all[0], self.signs_of_all[1]))

    @property
    def sign_conflict_of_all_by_size(self) -> float:
        """The same with each weight counted as often as the sum of all |d_i| says."""
        return float(_share(self.signs_of_all[2], self.signs_of_all[3]))


def compare(vectors: TaskVectors, *, signs: bool = True) -> Sums:
    """Read every weight of one tensor once and return its sums.

    Args:
        vectors: base and experts, on a CPU.
        signs: also look at signs, which takes twice as long as the rest; else theirs stay zero.

    Raises:
        Refusal: a weight is NaN or Inf.
    """
    from wildmerge.vectors import loops

    found, base = Sums.nothing(len(vectors)), np.zeros((1, 1))
    looked_at = found.signs if signs else found.signs[:0]
    for at, deltas in vectors.chunks():
        loops.compare(deltas.numpy(), BLOCK, found.products, looked_at, found.signs_of_all)
        own = vectors.base_chunk(at)[None].numpy()
        loops.compare(own, BLOCK, base, found.signs[:0], found.signs_of_all)
    found.weights, found.base = vectors.numel, float(base[0, 0])
    lower = np.tril(found.products)
    found.products = lower + np.tril(lower, -1).T
    return found


def _share(part: Array | float, whole: Array | float) -> Array:
    """Return part / whole; NaN where the whole is zero."""
    found = np.full(np.shape(whole), np.nan)
    return np.asarray(np.divide(part, whole, out=found, where=np.asarray(whole) > 0))
