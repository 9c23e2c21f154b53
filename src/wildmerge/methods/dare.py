"""DARE: drop entries of each task vector at random and rescale the rest, then combine.

Source: Yu et al., "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free
Lunch", ICML 2024, arXiv 2311.03099. Everything is per tensor, norms and embeddings included. What is
kept follows from seed, expert, tensor and place (`wildmerge.vectors.draws`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from wildmerge.methods.declaration import Count, Share, Weights, about
from wildmerge.methods.task_arithmetic import task_arithmetic
from wildmerge.methods.ties import ties
from wildmerge.vectors import combining
from wildmerge.vectors.task_vectors import TaskVectors, Update


@about(label="DARE", source="Yu et al., ICML 2024, arXiv 2311.03099")
def dare_linear(
    vectors: TaskVectors,
    *,
    density: Share = 0.5,
    seed: Count = 0,
    rescale: Literal["probability", "l1", "none"] = "probability",
    scale: Literal["mean", "sum"] = "mean",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> Update:
    """Mean or sum of what is kept of the task vectors; density is the chance of an entry to be kept."""
    if density == 1:
        return task_arithmetic(vectors, scale=scale, lambda_=lambda_, weights=weights)
    keep = _dropping(vectors, density, seed, rescale)
    return lambda deltas, at: combining.mix(keep(deltas, at), weights, scale, lambda_)


@about(label="DARE + TIES", source="Yu et al., ICML 2024, arXiv 2311.03099")
def dare_ties(
    vectors: TaskVectors,
    *,
    density: Share = 0.5,
    seed: Count = 0,
    rescale: Literal["probability", "l1", "none"] = "probability",
    divisor: Literal["agreeing", "n", "sum"] = "agreeing",
    lambda_: float = 1.0,
    weights: Weights | None = None,
) -> Update:
    """What is kept of the task vectors, combined as TIES does, without its trimming."""
    if density == 1:
        return ties(vectors, density=1.0, divisor=divisor, lambda_=lambda_, weights=weights)
    keep = _dropping(vectors, density, seed, rescale)
    return lambda deltas, at: combining.elect(keep(deltas, at), weights, divisor, lambda_)


def _dropping(
    vectors: TaskVectors, density: float, seed: int, rescale: str
) -> Callable[[Tensor, slice], Tensor]:
    """Return what drops entries of each chunk (n, c) of the task vectors and rescales the others.

    By 1 / density ("probability"), which leaves the expectation; or so that a task vector's sum of
    magnitudes is what it was ("l1").
    """
    draws = vectors.draws(seed)

    def keep(deltas: Tensor, at: slice) -> Tensor:
        for drawn, delta in zip(draws, deltas.unbind(), strict=True):
            drawn.keep_(delta, at, density)
        return deltas

    if rescale == "none":
        return keep
    factors = 1 / density if rescale == "probability" else combining.l1_factors(vectors, keep)
    return lambda deltas, at: keep(deltas, at).mul_(factors)
