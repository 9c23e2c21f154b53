"""Model Stock: the mean of the task vectors, shrunk by how much they agree in direction.

Source: Jang et al., "Model Stock: All we need is just a few fine-tuned models", ECCV 2024,
arXiv 2403.19522. Per tensor: c = mean pairwise cosine of the task vectors,
t = n c / (1 + (n - 1) c), update = t * mean_i D_i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildmerge.task_vectors import Facts, Rule, TaskVectors


def model_stock(
    vectors: TaskVectors, *, filter_wise: bool = False, norm_floor: float = 0.0
) -> tuple[Rule, Facts]:
    """Interpolate between the base and the mean of the experts by their agreement.

    Args:
        vectors: the task vectors of one tensor; n >= 2.
        filter_wise: one t for each row of a 2-D tensor instead of one for the tensor.
        norm_floor: smallest product of norms a cosine is divided by (the common merging tool uses
            1e-6, which silently returns barely moved tensors to the base; off by default).

    Returns:
        An elementwise rule, and the facts: t (its mean over rows when filter-wise), and whether t was
        outside of [0, 1] or undefined (`t_unusual`).
    """
    by_row = filter_wise and len(vectors.shape) == 2
    gram = _row_grams(vectors) if by_row else _gram(vectors)[None]
    t = _ratio(gram, norm_floor)
    unusual = bool(((t < 0) | (t > 1) | ~t.isfinite()).any())
    # experts that cancel exactly have no mean to follow: t is infinite, the update nothing
    t = torch.where(t.isfinite(), t, 0.0)
    facts = {"t": float(t.mean()), "t_unusual": unusual}
    columns = vectors.shape[-1] if by_row else vectors.numel
    t = t.to(vectors.device, torch.float32)

    def rule(deltas: Tensor, at: slice) -> Tensor:
        if not by_row:
            return deltas.mean(0) * t
        rows = torch.arange(at.start, at.stop, device=deltas.device) // columns
        return deltas.mean(0) * t[rows]

    return rule, facts


def _ratio(gram: Tensor, norm_floor: float) -> Tensor:
    """Return t for Gram matrices of shape (rows, n, n): shape (rows,), float64."""
    n = gram.shape[-1]
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    products = (norms[:, :, None] * norms[:, None, :]).clamp(min=norm_floor)
    cosines = torch.where(products > 0, gram / products, 0.0).clamp(-1, 1)
    first, second = torch.triu_indices(n, n, offset=1)
    c = cosines[:, first, second].mean(-1)
    return n * c / (1 + (n - 1) * c)


def _gram(vectors: TaskVectors) -> Tensor:
    """Return all inner products of the task vectors, (n, n), float64."""
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors.device)
    for _, deltas in vectors.chunks():
        wide = deltas.double()
        gram += wide @ wide.T
    return gram.cpu()


def _row_grams(vectors: TaskVectors) -> Tensor:
    """Return the inner products within each row of a matrix, (rows, n, n), float64."""
    whole = torch.stack([vectors[i] for i in range(len(vectors))], dim=1).double()
    return (whole @ whole.transpose(1, 2)).cpu()
