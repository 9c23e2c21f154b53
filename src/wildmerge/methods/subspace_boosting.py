"""Subspace Boosting: raise the small singular values of a finished update, on TA or on TIES.

Source: Skorobogat et al., "Subspace-Boosted Model Merging", 2025, arXiv 2506.16506. Matrices only; every
other tensor stays as the inner method left it.
"""

from __future__ import annotations

from typing import Literal

import torch

from wildmerge.methods.declaration import NullSpace, Share, Threshold, Weights, about
from wildmerge.methods.task_arithmetic import task_arithmetic
from wildmerge.methods.ties import ties
from wildmerge.vectors import linalg
from wildmerge.vectors.task_vectors import Facts, TaskVectors, Update


@about(
    label="TA + SB",
    family="subspace",
    source="Skorobogat et al., 2025, arXiv 2506.16506",
    presets={"text": {"scale": "sum"}},
    versioned=True,
)
def task_arithmetic_sb(
    vectors: TaskVectors,
    *,
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
    weights: Weights | None = None,
    beta: Threshold = 0.2,
    null_space: NullSpace = "keep",
) -> tuple[Update, Facts]:
    """Task Arithmetic, then Subspace Boosting at threshold beta."""
    inner = task_arithmetic(vectors, scale=scale, lambda_=lambda_, weights=weights)
    return _boost(inner, vectors, beta, null_space)


@about(
    label="TIES + SB",
    family="subspace",
    source="Skorobogat et al., 2025, arXiv 2506.16506",
    presets={"text": {"divisor": "n"}},
    versioned=True,
)
def ties_sb(
    vectors: TaskVectors,
    *,
    density: Share = 0.1,
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
    weights: Weights | None = None,
    beta: Threshold = 0.2,
    null_space: NullSpace = "keep",
) -> tuple[Update, Facts]:
    """TIES, then Subspace Boosting at threshold beta."""
    inner = ties(vectors, density=density, divisor=divisor, lambda_=lambda_, weights=weights)
    return _boost(inner, vectors, beta, null_space)


def _boost(
    inner: Update, vectors: TaskVectors, beta: float, null_space: NullSpace
) -> tuple[Update, Facts]:
    """Raise every singular value to the first at which the cumulated share reaches beta.

    r_j = cumsum(sigma)_j / sum(sigma); j* = first j with r_j >= beta;
    sigma' = max(sigma, sigma_{j*}). A zero update stays zero.

    Returns:
        The update, and the facts: rank of the inner update, outside_share (share of the boosted
        energy in directions outside of that rank) and boosted_from (j*, counted from 1).
    """
    if not vectors.is_matrix:
        return inner, {}
    spectrum = linalg.spectrum(vectors.materialise(inner))
    s = spectrum.sigma
    if s[0] == 0:
        return torch.zeros(vectors.shape, device=vectors.device), {"rank": 0, "outside_share": 0.0}
    shares = s.cumsum(0) / s.sum()
    first = int((shares < beta).sum().clamp(max=len(s) - 1))
    rank = linalg.rank(s, vectors)
    boosted = s.clamp(min=float(s[first]))
    if null_space == "drop":
        boosted[rank:] = 0
    outside = float(boosted[rank:].square().sum() / boosted.square().sum())
    facts = {"rank": rank, "outside_share": outside, "boosted_from": first + 1}
    return spectrum.with_values(boosted).float(), facts
