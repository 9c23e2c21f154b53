"""TSV-Merge: concatenate each expert's leading singular directions and make them orthogonal.

Source: Gargiulo et al., "Task Singular Vectors: Reducing Task Interference in Model Merging",
CVPR 2025, arXiv 2412.00081. Matrices only; every other tensor gets the mean.
"""

from __future__ import annotations

import torch

from wildmerge import linalg
from wildmerge.methods import NullSpace
from wildmerge.task_vectors import Facts, TaskVectors, Update, mean


def tsv_m(
    vectors: TaskVectors, *, lambda_: float = 1.0, null_space: NullSpace = "keep"
) -> tuple[Update, Facts]:
    """Sum of the experts' leading singular directions after joint orthogonalisation.

    With k = min(rows, columns) // n singular triplets of every expert, concatenated to U, sigma, V:
    update = lambda * P_U diag(sigma) P_V^T, where P_X is the orthogonal polar factor of X.

    Args:
        vectors: the task vectors of one tensor.
        lambda_: the factor of the matrix update (other tensors get the plain mean).
        null_space: "drop" leaves out directions in which an expert did not move.

    Returns:
        The update, and the facts: rank (directions in which the experts moved) and outside_share
        (share of the update's energy outside of the span of those directions).
    """
    if not vectors.is_matrix:
        return mean, {}
    k = min(vectors.shape) // len(vectors)
    parts = [linalg.svd(vectors[i]) for i in range(len(vectors))]
    moved = torch.cat([s[:k] > linalg.tolerance(s, vectors) for _, s, _ in parts])
    u = torch.cat([u[:, :k] for u, _, _ in parts], dim=1)
    s = torch.cat([s[:k] for _, s, _ in parts])
    v = torch.cat([vh[:k] for _, _, vh in parts]).T
    left, right = u[:, moved], v[:, moved]
    drop = null_space == "drop"
    if drop:
        u, s, v = left, s[moved], right
    update = (linalg.polar(u, drop_null=drop) * s) @ linalg.polar(v, drop_null=drop).T
    inside = linalg.energy_within(update, left, right) if not moved.all() else 1.0
    facts = {"rank": int(moved.sum()), "outside_share": 1.0 - inside}
    return (lambda_ * update).float(), facts
