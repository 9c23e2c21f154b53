"""Model Stock: the mean of the task vectors, shrunk by how much they agree in direction.

Source: Jang et al., "Model Stock: All we need is just a few fine-tuned models", ECCV 2024,
arXiv 2403.19522. Per tensor: c = mean pairwise cosine of the task vectors,
t = n c / (1 + (n - 1) c), update = t * mean_i D_i.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wildmerge.methods.declaration import about
from wildmerge.vectors.elementwise import add_up, inner_products
from wildmerge.vectors.task_vectors import Facts, TaskVectors

_SMALL = 1 << 16
"""Tensors of no more elements have their inner products in float64 throughout: it costs nothing."""


@about(
    label="Model Stock",
    family="weight-space",
    source="Jang et al., ECCV 2024, arXiv 2403.19522",
    versioned=True,
)
def model_stock(
    vectors: TaskVectors, *, filter_wise: bool = False, norm_floor: float = 0.0
) -> tuple[Tensor, Facts]:
    """Interpolate between the base and the mean of the experts by their agreement.

    Args:
        vectors: the task vectors of one tensor; n >= 2.
        filter_wise: one t for each row of a 2-D tensor instead of one for the tensor.
        norm_floor: smallest product of norms a cosine is divided by (the common merging tool uses
            1e-6, which silently returns barely moved tensors to the base; off by default).

    Returns:
        The update, and the facts: t (its mean over rows when filter-wise), and whether t was
        outside of [0, 1] or undefined (`t_unusual`).
    """
    by_row = filter_wise and len(vectors.shape) == 2
    gram, total = _gram(vectors)
    t = _ratio(_row_grams(vectors) if by_row else gram[None], norm_floor)
    unusual = bool(((t < 0) | (t > 1) | ~t.isfinite()).any())
    # experts that cancel exactly have no mean to follow: t is infinite, the update nothing
    t = torch.where(t.isfinite(), t, 0.0)
    facts = {"t": float(t.mean()), "t_unusual": unusual}
    factor = (t / len(vectors)).to(vectors.device, torch.float32)
    return total.mul_(factor[:, None] if by_row else factor[0]), facts


def _ratio(gram: Tensor, norm_floor: float) -> Tensor:
    """Return t for Gram matrices of shape (rows, n, n): shape (rows,), float64."""
    n = gram.shape[-1]
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
    products = (norms[:, :, None] * norms[:, None, :]).clamp(min=norm_floor)
    cosines = torch.where(products > 0, gram / products, 0.0).clamp(-1, 1)
    first, second = torch.triu_indices(n, n, offset=1)
    c = cosines[:, first, second].mean(-1)
    return n * c / (1 + (n - 1) * c)


def _gram(vectors: TaskVectors) -> tuple[Tensor, Tensor]:
    """Return all inner products of the task vectors, (n, n) float64, and their sum, float32.

    One pass over the experts gives both.
    """
    gram = torch.zeros(len(vectors), len(vectors), dtype=torch.float64, device=vectors.device)
    total = torch.empty(vectors.numel, device=vectors.device)
    for at, deltas in vectors.chunks():
        add_up(deltas, out=total[at])
        gram += inner_products(deltas, exact=vectors.numel <= _SMALL)
    return gram.cpu(), total.reshape(vectors.shape)


def _row_grams(vectors: TaskVectors) -> Tensor:
    """Return the inner products within each row of a matrix, (rows, n, n), float64."""
    rows, columns = vectors.shape
    step = max(1, _SMALL // columns)
    grams = []
    for start in range(0, rows, step):
        at = slice(start * columns, min(start + step, rows) * columns)
        chunks = [vectors.chunk(i, at).reshape(-1, columns) for i in range(len(vectors))]
        block = torch.stack(chunks, dim=1).double()
        grams.append((block @ block.mT).cpu())
    return torch.cat(grams)
