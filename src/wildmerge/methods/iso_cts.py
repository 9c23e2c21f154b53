"""Iso-CTS: common directions of the sum and directions of each expert alone, with a flat spectrum.

Source: Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
Subspaces", ICML 2025, arXiv 2502.04959. Matrices only; every other tensor gets the mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildmerge.methods.declaration import NullSpace, Threshold, about
from wildmerge.vectors import linalg
from wildmerge.vectors.task_vectors import Facts, TaskVectors, Update, mean


@about(label="Iso-CTS", family="subspace", source="Marczak et al., ICML 2025, arXiv 2502.04959")
def iso_cts(
    vectors: TaskVectors,
    *,
    common: Threshold = 0.8,
    lambda_: float = 1.0,
    null_space: NullSpace = "keep",
) -> tuple[Update, Facts]:
    """Leading directions of the sum and each expert's own beside them, all of the same length.

    With s = min(rows, columns) and e = min(round((s - int(s * common)) / n), s // n): the s - n e
    leading singular triplets U_c, sigma_c, V_c of sum_i D_i and the e leading ones of every
    D_i - U_c U_c^T D_i, side by side in U, sigma, V. Update = lambda * sum(sigma) / s * P_U P_V^T with
    the polar factors P.

    Args:
        vectors: the task vectors of one tensor.
        common: share of the directions that is taken from the sum; the rest are the experts' own.
        lambda_: the factor of the matrix update (other tensors get the plain mean).
        null_space: "drop" leaves out directions in which nothing moved.

    Returns:
        The update, and the facts: rank (directions in which something moved) and outside_share (share
        of the update's energy outside of their span).
    """
    if not vectors.is_matrix:
        return mean(vectors), {}
    total, drop = vectors.total(), null_space == "drop"
    if not total.any():
        return total, {"rank": 0, "outside_share": 0.0}
    u, s, v, moved = _directions(vectors, total, common, drop)
    length = lambda_ * float(s.sum()) / min(vectors.shape)
    left, right = (linalg.polar(factor, drop_null=drop) for factor in (u, v))
    update = linalg.product(length * left, right.mT)
    inside = 1.0 if moved.all() else linalg.energy_within(update, u[:, moved], v[:, moved])
    return update.float(), {"rank": int(moved.sum()), "outside_share": 1.0 - inside}


def _directions(
    vectors: TaskVectors, total: Tensor, common: float, drop: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return U (a column a direction), sigma, V, and which directions stand above rounding."""
    n, s = len(vectors), min(vectors.shape)
    own = min(round((s - int(s * common)) / n), s // n)
    whole = linalg.spectrum(total.double())
    rounding = linalg.tolerance(whole.sigma, vectors, summed=n)
    parts = [_leading(whole, s - n * own, rounding, drop)]
    basis = parts[0][0]
    for i in range(n if own else 0):
        delta = vectors[i].double()
        rest = delta - linalg.product(basis, linalg.product(basis.mT, delta))
        rounding = linalg.tolerance(delta.norm()[None], vectors)
        parts.append(_leading(linalg.spectrum(rest), own, rounding, drop))
    u, sigma, v, moved = (torch.cat(part, -1) for part in zip(*parts, strict=True))
    return u, sigma, v, moved


def _leading(found: linalg.Spectrum, count: int, rounding: float, drop: bool) -> tuple[Tensor, ...]:
    """Return the first triplets and which stand above rounding; with `drop`, only those that do."""
    above = int((found.sigma > rounding).sum())
    u, sigma, v = found.leading(min(count, above) if drop else count)
    return u.mT, sigma, v.mT, sigma > rounding
