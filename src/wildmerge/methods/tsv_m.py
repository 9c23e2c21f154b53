"""TSV-Merge: concatenate each expert's leading singular directions and make them orthogonal.

Source: Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging",
CVPR 2025, arXiv 2412.00081. Matrices only; every other tensor gets the mean.
"""

from __future__ import annotations

import torch

from wildmerge.methods.declaration import NullSpace, about
from wildmerge.vectors import linalg
from wildmerge.vectors.task_vectors import Facts, TaskVectors, Update, mean


@about(
    label="TSV-M",
    family="subspace",
    source="Gargiulo et al., CVPR 2025, arXiv 2412.00081",
    reads_spectra=True,
    versioned=True,
)
def tsv_m(
    vectors: TaskVectors, *, lambda_: float = 1.0, null_space: NullSpace = "keep"
) -> tuple[Update, Facts]:
    """Sum of the experts' leading singular directions after joint orthogonalisation.

    With k = min(rows, columns) // n singular triplets of every expert, concatenated to U, sigma, V:
    update = lambda * P_U diag(sigma) P_V^T, where P_X is the orthogonal polar factor of X. A matrix with
    fewer rows or columns than there are experts has k = 0 and gets the mean, like all other tensors.

    Args:
        vectors: the task vectors of one tensor.
        lambda_: the factor of the matrix update (other tensors get the plain mean).
        null_space: "drop" leaves out directions in which an expert did not move.

    Returns:
        The update, and the facts: rank (directions in which the experts moved) and outside_share
        (share of the update's energy outside of the span of those directions).
    """
    k = min(vectors.shape, default=0) // len(vectors)
    if not vectors.is_matrix or not k:
        return mean(vectors), {}
    parts = [linalg.leading(vectors, i) for i in range(len(vectors))]
    u, s, v = (torch.cat([part[:k] for part in factor]) for factor in zip(*parts, strict=True))
    moved = torch.cat([sigma[:k] > linalg.tolerance(sigma, vectors) for _, sigma, _ in parts])
    left, right = u[moved].double().mT, v[moved].double().mT
    drop = null_space == "drop"
    if drop:
        u, s, v = u[moved], s[moved], v[moved]
    scaled = (lambda_ * s * linalg.polar(u.mT, drop_null=drop)).float()
    update = linalg.product(scaled, linalg.polar(v.mT, drop_null=drop).float().mT)
    inside = linalg.energy_within(update.double(), left, right) if not moved.all() else 1.0
    return update, {"rank": int(moved.sum()), "outside_share": 1.0 - inside}
