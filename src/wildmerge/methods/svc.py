"""Singular Value Calibration: shrink what several experts share and a sum counts several times.

Source: Li et al., "When Shared Knowledge Hurts: Spectral Over-Accumulation in Model Merging", ICML 2026,
arXiv 2602.05536. Matrices only; every other tensor stays as the inner method left it.
"""

from __future__ import annotations

from typing import Literal

import torch

from wildmerge.methods.declaration import Positive, Share, Weights, about
from wildmerge.methods.task_arithmetic import task_arithmetic
from wildmerge.methods.ties import ties
from wildmerge.vectors import linalg
from wildmerge.vectors.linalg import product
from wildmerge.vectors.task_vectors import Facts, TaskVectors, Update


@about(label="TA + SVC", family="subspace", source="Li et al., ICML 2026, arXiv 2602.05536")
def task_arithmetic_svc(
    vectors: TaskVectors,
    *,
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
    weights: Weights | None = None,
    alpha: Positive | None = None,
) -> tuple[Update, Facts]:
    """Task Arithmetic, then Singular Value Calibration."""
    factor = 1.0 if vectors.is_matrix else lambda_
    inner = task_arithmetic(vectors, scale=scale, lambda_=factor, weights=weights)
    return _calibrate(inner, vectors, lambda_, alpha)


@about(label="TIES + SVC", family="subspace", source="Li et al., ICML 2026, arXiv 2602.05536")
def ties_svc(
    vectors: TaskVectors,
    *,
    density: Share = 0.1,
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
    weights: Weights | None = None,
    alpha: Positive | None = None,
) -> tuple[Update, Facts]:
    """TIES, then Singular Value Calibration."""
    factor = 1.0 if vectors.is_matrix else lambda_
    inner = ties(vectors, density=density, divisor=divisor, lambda_=factor, weights=weights)
    return _calibrate(inner, vectors, lambda_, alpha)


def _calibrate(
    inner: Update, vectors: TaskVectors, lambda_: float, alpha: float | None
) -> tuple[Update, Facts]:
    """Multiply every sigma_r of a matrix's inner update M = U diag(sigma) V^T by gamma_r * lambda.

    gamma_r = n / sum_i max(alpha, s_ri), s_ri = <sigma_r v_r, a_ri> / |a_ri|^2, a_ri = u_r^T D_i: what
    an expert, not trimmed, has in a direction, and how often M counts it. alpha: 1 / n if not given.
    """
    if not vectors.is_matrix:
        return inner, {}
    m, n = vectors.materialise(inner).double(), len(vectors)
    wide = m.shape[0] < m.shape[1]
    basis = linalg.eigh(product(m, m.mT) if wide else product(m.mT, m))[1]
    left = (
        basis.mT if wide else product(basis.mT, m.mT)
    )  # rows u_r, or sigma_r u_r: s_ri is the same
    own, sizes, counted = product(left, m), [], torch.zeros(len(left)).to(left)
    for delta in (vectors[i].double() for i in range(n)):
        sizes.append(float(delta.norm()))
        answer = product(left, delta)
        some = answer.norm(dim=1) > 1e-10 * sizes[-1] * left.norm(dim=1)
        share = (own * answer).sum(1) / answer.square().sum(1)
        counted += torch.where(some, share, 0.0).clamp(min=alpha or 1 / n)
    scaling = product(basis * (n / counted), basis.mT)
    update = lambda_ * (product(scaling, m) if wide else product(m, scaling))
    facts: Facts = {"smallest_gamma": n / float(counted.max())}
    if min((size for size in sizes if size), default=0) < 0.01 * max(sizes):
        facts["warning"] = "an expert moved by less than 1% of another, which SVC overrates"
    return update.float(), facts
