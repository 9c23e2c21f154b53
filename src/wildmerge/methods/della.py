"""DELLA: drop entries at random, small ones of a row more often, rescale the rest, then combine.

Source: Deep et al., "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based
Sampling", 2024, arXiv 2406.11617. Rows are those of the last axis; a vector is one row.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from wildmerge.errors import Refusal
from wildmerge.methods.declaration import Count, Share, Threshold, Weights, about
from wildmerge.vectors import combining
from wildmerge.vectors.draws import WORDS
from wildmerge.vectors.task_vectors import ByRows, Rule, TaskVectors


@about(label="DELLA", source="Deep et al., 2024, arXiv 2406.11617")
def della_linear(
    vectors: TaskVectors,
    *,
    density: Share = 0.5,
    epsilon: Threshold = 0.15,
    seed: Count = 0,
    rescale: Literal["probability", "l1", "none"] = "probability",
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> ByRows:
    """Mean or sum of what is kept of the task vectors; epsilon: half the range of the chances."""
    keep = _drop(vectors, density, epsilon, seed, rescale)
    return ByRows(lambda deltas, at: combining.mix(keep(deltas, at), weights, scale, lambda_))


@about(label="DELLA + TIES", source="Deep et al., 2024, arXiv 2406.11617")
def della(
    vectors: TaskVectors,
    *,
    density: Share = 0.5,
    epsilon: Threshold = 0.15,
    seed: Count = 0,
    rescale: Literal["probability", "l1", "none"] = "probability",
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> ByRows:
    """The same task vectors, combined as TIES does, without its trimming."""
    keep = _drop(vectors, density, epsilon, seed, rescale)
    return ByRows(lambda deltas, at: combining.elect(keep(deltas, at), weights, divisor, lambda_))


def _drop(vectors: TaskVectors, density: float, epsilon: float, seed: int, rescale: str) -> Rule:
    """Return what drops entries of whole rows of the task vectors, (n, r * width), in place.

    An entry of rank 0 (the smallest of its row) to width - 1 is kept with the chance
    q = density - epsilon + 2 * epsilon * rank / (width - 1), and divided by q ("probability").
    """
    if density == 1:
        return lambda deltas, at: deltas
    if not epsilon < density < 1 - epsilon:
        raise Refusal(f"recipe: density {density} +- {epsilon} leaves (0, 1); lower epsilon")
    width, draws = vectors.shape[-1] if vectors.shape else 1, vectors.draws(seed)
    ranks = torch.arange(width - 1, -1, -1, dtype=torch.float64)  # in the order of size
    q = density - epsilon + (ranks / (width - 1) if width > 1 else ranks + 0.5) * 2 * epsilon
    limits = (q * WORDS).long().to(vectors.device)
    factors = (1 / q if rescale == "probability" else q**0).float().to(vectors.device)

    def keep(deltas: Tensor, at: slice) -> Tensor:
        for drawn, delta in zip(draws, deltas.unbind(), strict=True):
            rows, words = delta.view(-1, width), drawn.words(at, delta.device).view(-1, width)
            order = rows.abs().argsort(dim=1, descending=True, stable=True)
            kept = (words.gather(1, order) < limits) * factors
            rows.mul_(torch.empty_like(rows).scatter_(1, order, kept))
        return deltas

    lengths = combining.l1_factors(vectors, keep, True) if rescale == "l1" else None
    return keep if lengths is None else lambda deltas, at: keep(deltas, at).mul_(lengths)
