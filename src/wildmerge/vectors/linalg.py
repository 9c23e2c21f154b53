"""The only place with singular value decompositions, polar factors and numerical rank.

Decompositions are computed in float64: a float32 SVD is off by up to 3e-5, more than methods may be.

The route, measured on a CPU core (seconds for 1024 x 1024 and 3072 x 1024): eigenvectors of the Gram
matrix of the smaller side take 0.11 and 0.15, a float32 SVD 0.25 and 0.45, a float64 SVD 0.33 and 0.72.
Forming the Gram matrix squares the condition number, so where that may be too much, what comes of it is
probed for orthogonality, and recomputed by an SVD where it fails. A GPU runs the same code, unmeasured.

On a CPU the products are NumPy's, whose BLAS knows that A^T A is symmetric, and the eigenvectors are
SciPy's, which calls LAPACK without copies; torch takes half as long again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import scipy.linalg
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from wildmerge.vectors.task_vectors import TaskVectors

_RESIDUAL = 1e-6
"""Largest relative departure from orthogonality: a tenth of what the methods may be off."""
_PROBES = 4
_CONDITION = 1e10
"""Largest condition number of a Gram matrix that is divided by: float64 then leaves an error of a
millionth, and what lies beyond is a share of 1e-5 of the largest singular value, or rounding."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Have torch, NumPy and SciPy use one thread while this process works on many tensors at once.

    The bytes of a result then do not depend on the number of CPUs. Then they use as many as before.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Spectrum:
    """The singular values of a matrix A = U diag(sigma) V^T, and matrices with others in their place.

    Attributes:
        sigma: all min(rows, columns) singular values, descending, float64.
    """

    sigma: Tensor
    _tall: Tensor  # A or its transpose, with at least as many rows as columns, float64
    _vectors: Tensor  # right singular vectors of that, in columns, float64
    _transposed: bool
    _given: torch.dtype  # that A was given in

    def with_values(self, values: Tensor) -> Tensor:
        """Return U diag(values) V^T in float64, for values of the shape of sigma."""
        if not bool(values.any()):
            return torch.zeros_like(self._tall.mT if self._transposed else self._tall)
        if self._is_accurate(values):
            used = values != 0
            basis = self._vectors[:, used]
            scaled = basis * (values[used].abs() / self.sigma[used]).sqrt()
            result = product(self._tall, product(scaled * values[used].sign(), scaled.mT))
        else:
            u, _, vh = torch.linalg.svd(self._tall, full_matrices=False)
            result = (u * values) @ vh
        return result.mT if self._transposed else result

    def leading(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the first `count` singular triplets: U^T (count, rows), sigma, V^T (count, columns).

        They are of the dtype that the matrix was given in; sigma is float64.
        """
        sigma = self.sigma[:count]
        values = torch.zeros_like(self.sigma)
        values[:count] = 1
        if self._is_accurate(values):
            vectors = self._vectors[:, :count].to(self._given)
            images = product(self._tall.to(self._given), vectors)
            right, left = vectors.mT, images.mT / sigma[:, None].to(self._given)
        else:
            u, _, vh = torch.linalg.svd(self._tall, full_matrices=False)
            left, right = u[:, :count].mT.to(self._given), vh[:count].to(self._given)
        return (right, sigma, left) if self._transposed else (left, sigma, right)

    def _is_accurate(self, values: Tensor) -> bool:
        """Return whether the left vectors A V / sigma are orthogonal enough where `values` are not zero.

        In units of sigma_1^2 the Gram matrix is off by no more than rows * eps, which says enough of
        vectors whose sigma is not too small; for the others, some are tried.
        """
        used = self.sigma[values != 0]
        if not len(used):
            return True
        squared = float((self.sigma[0] / used.min()).square())
        bound = len(self._tall) * torch.finfo(torch.float64).eps * squared
        return bound <= _RESIDUAL or self._departure(values) <= _RESIDUAL

    def _departure(self, values: Tensor) -> float:
        """Estimate how far the left vectors A V / sigma are from orthogonal, weighted by `values`.

        Random combinations of them, (U^T U - I) z / |z|; not a number where a used sigma is zero.
        """
        used = values != 0
        basis, sigma = self._vectors[:, used], self.sigma[used, None]
        probes = torch.randn(len(sigma), _PROBES, generator=torch.Generator().manual_seed(0))
        probes = probes.to(basis) * values[used, None]
        images = self._tall @ (basis @ (probes / sigma))
        back = (basis.mT @ (self._tall.mT @ images)) / sigma
        return float((back - probes).norm() / probes.norm())


def spectrum(matrix: Tensor) -> Spectrum:
    """Return the singular values of a matrix of any float dtype, ready to be replaced."""
    transposed = matrix.shape[0] < matrix.shape[1]
    tall = (matrix.mT if transposed else matrix).double()
    values, vectors = eigh(product(tall.mT, tall))
    sigma = values.flip(0).clamp(min=0).sqrt()
    return Spectrum(sigma, tall, vectors.flip(1), transposed, matrix.dtype)


def leading(vectors: TaskVectors, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the leading half of an expert's singular triplets, read or computed, in float32.

    Half of them is all that n >= 2 experts need. They are rounded to float32 either way, so that
    stored spectra change no byte of a merge.

    Returns:
        U^T (min(shape) // 2, rows), sigma (min(shape) // 2,), V^T (min(shape) // 2, columns).
    """
    if vectors.factors:
        u, s, v = vectors.factors[index]
        return u.to(vectors.device), s.to(vectors.device), v.to(vectors.device)
    u, s, v = spectrum(vectors[index]).leading(min(vectors.shape) // 2)
    return u.float(), s.float(), v.float()


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return the product of two matrices of the same dtype, by the library that is faster here."""
    if left.device.type == "cpu":
        return torch.from_numpy(left.numpy() @ right.numpy())
    return left @ right


def eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, ascending, and eigenvectors in columns, of a matrix that is overwritten."""
    if symmetric.device.type == "cpu":
        # in the order of LAPACK, and to be overwritten: no copies
        values, vectors = scipy.linalg.eigh(
            symmetric.numpy().T, driver="evd", overwrite_a=True, check_finite=False
        )
        return torch.from_numpy(values), torch.from_numpy(vectors)
    values, vectors = torch.linalg.eigh(symmetric)
    return values, vectors


def divide(left: Tensor, gram: Tensor) -> Tensor:
    """Return left @ gram^+ for a Gram matrix in float64, which is overwritten.

    By Cholesky's method where the Gram matrix is well conditioned, which is faster; else by its
    eigenvectors, without those whose eigenvalue is as good as zero.
    """
    factor, failed = torch.linalg.cholesky_ex(gram)
    if not failed and float(gram.norm()) * _inverse_norm(factor) < _CONDITION:
        return torch.cholesky_solve(left.mT, factor).mT
    values, vectors = eigh(gram)
    used = values > values[-1] / _CONDITION
    basis = vectors[:, used]
    return product(product(left, basis) / values[used], basis.mT)


def _inverse_norm(factor: Tensor) -> float:
    """Estimate the largest eigenvalue of (L L^T)^-1 from Cholesky's factor L, by inverse iteration."""
    probes = torch.randn(len(factor), _PROBES, generator=torch.Generator().manual_seed(0))
    probes = probes.to(factor)
    for _ in range(_PROBES):
        probes = torch.cholesky_solve(probes / probes.norm(), factor)
    return float(probes.norm())


def polar(matrix: Tensor, *, drop_null: bool = False) -> Tensor:
    """Return the orthogonal polar factor U V^T of a matrix U diag(sigma) V^T, in float64.

    With `drop_null`, directions whose sigma is zero to float32 rounding are left out, so that the
    factor is unique for rank-deficient matrices too.
    """
    if not matrix.numel():
        return matrix
    found = spectrum(matrix)
    ones = torch.ones_like(found.sigma)
    return found.with_values(ones * _not_null(found.sigma, matrix) if drop_null else ones)


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


def effective_rank(sigma: Tensor) -> float:
    """Return exp(H) of the singular values as shares of their sum: 1 for one, n for n equal ones.

    Args:
        sigma: singular values, not negative, in any order.

    Returns:
        A number between 1 and the number of values above zero; 0 of a zero matrix.

    Source: O. Roy and M. Vetterli, "The effective rank", EUSIPCO 2007, definition 1.
    """
    shares = sigma[sigma > 0].double()
    if not len(shares):
        return 0.0
    shares = shares / shares.sum()
    return math.exp(float(-(shares * shares.log()).sum()))


def overlap(first: Tensor, second: Tensor) -> float:
    """Return the mean squared cosine of the principal angles between two subspaces.

    Args:
        first: orthonormal basis in rows, (r, d).
        second: likewise.

    Returns:
        |A B^T|_F^2 / r: 1 for the same subspace, 0 for orthogonal ones, r / d for random ones.

    Source: A. Björck and G. H. Golub, Mathematics of Computation 27 (1973), 579-594.
    """
    return float(product(first, second.mT.contiguous()).square().sum()) / len(first)


def energy_within(update: Tensor, left: Tensor, right: Tensor) -> float:
    """Return the share of |update|_F^2 that lies in span(left) x span(right)."""
    energy = float(update.square().sum())
    if energy == 0:
        return 1.0
    inside = _basis(left).mT @ update @ _basis(right)
    return float(inside.square().sum()) / energy


def _basis(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of the columns."""
    if not columns.numel():
        return columns
    found = spectrum(columns)
    return found.leading(int(_not_null(found.sigma, columns).sum()))[0].mT


def _not_null(sigma: Tensor, matrix: Tensor) -> Tensor:
    return sigma > max(matrix.shape) * torch.finfo(torch.float32).eps * sigma[0]
