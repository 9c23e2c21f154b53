"""Iso-C: the sum of the task vectors with its spectrum made flat.

Source: Marczak et al., "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific
Subspaces", ICML 2025, arXiv 2502.04959. Matrices only; every other tensor gets the mean.
"""

from __future__ import annotations

import torch

from wildmerge.methods.declaration import NullSpace, about
from wildmerge.vectors import linalg
from wildmerge.vectors.task_vectors import Facts, TaskVectors, Update, mean


@about(
    label="Iso-C",
    family="subspace",
    source="Marczak et al., ICML 2025, arXiv 2502.04959",
    versioned=True,
)
def iso_c(
    vectors: TaskVectors, *, lambda_: float = 1.0, null_space: NullSpace = "keep"
) -> tuple[Update, Facts]:
    """Sum of the task vectors, every singular value replaced by their mean.

    With sum_i D_i = U diag(sigma) V^T: update = lambda * mean(sigma) * U V^T, the mean over all
    min(rows, columns) values, zeros included.

    Args:
        vectors: the task vectors of one tensor.
        lambda_: the factor of the matrix update (other tensors get the plain mean).
        null_space: "drop" gives no weight to directions in which no expert moved.

    Returns:
        The update, and the facts: rank of the sum and outside_share (share of the update's energy in
        directions outside of that rank).
    """
    if not vectors.is_matrix:
        return mean(vectors), {}
    spectrum = linalg.spectrum(vectors.total())
    rank = linalg.rank(spectrum.sigma, vectors, summed=len(vectors))
    flat = torch.full_like(spectrum.sigma, float(spectrum.sigma.mean()))
    used = rank if null_space == "drop" else len(flat)
    flat[used:] = 0
    facts = {"rank": rank, "outside_share": (used - rank) / max(used, 1)}
    return spectrum.with_values(lambda_ * flat).float(), facts
