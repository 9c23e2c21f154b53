"""What a method returns and what is written are looked at, tensor by tensor, before a model appears."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from wildmerge.errors import Refusal
from wildmerge.vectors.task_vectors import ByRows, Facts, Sum, TaskVectors


def split(result: Any, vectors: TaskVectors, method: str) -> tuple[Any, Facts]:
    """Return the update and the facts in what a method returned.

    Args:
        result: an update (a float32 tensor, a `Sum` or a rule), or a pair of one and a dictionary.
        vectors: what the method was given.
        method: its name.

    Raises:
        Refusal: it is neither, or a tensor of another shape or dtype than the task vectors'.
    """
    update, facts = result if isinstance(result, tuple) and len(result) == 2 else (result, {})
    if not isinstance(facts, dict) or not (
        isinstance(update, Tensor | Sum | ByRows) or callable(update)
    ):
        raise _wrong(
            method, vectors, f"returned {_described(result)}, not a tensor, a Sum or a rule"
        )
    if isinstance(update, Tensor):
        _require(update, vectors.shape, vectors, method)
    return update, facts


def chunks(update: Any, vectors: TaskVectors, method: str) -> Iterator[tuple[slice, Tensor]]:
    """Yield (place, chunk of the update), each of the right shape and dtype and finite.

    Raises:
        Refusal: one is not.
    """
    for at, part in vectors.apply(update):
        if not isinstance(part, Tensor):
            raise _wrong(method, vectors, f"its rule returned {_described(part)}, not a tensor")
        _require(part, (at.stop - at.start,), vectors, method)
        if not torch.isfinite(part).all():
            raise _wrong(method, vectors, "its update holds NaN or Inf; check its hyperparameters")
        yield at, part


def rounded(merged: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """Return merged weights in the output's dtype.

    Raises:
        Refusal: one is too large for it.
    """
    extremes = torch.stack(torch.aminmax(merged))
    if not torch.isfinite(extremes.to(dtype)).all():  # rounding keeps the order
        kind = str(dtype).removeprefix("torch.")
        raise Refusal(
            f"{name}: merged weights up to {float(extremes.abs().max()):.3g} do not fit into {kind}, "
            f"whose largest is {torch.finfo(dtype).max:.3g}; choose another dtype or smaller weights"
        )
    return merged.to(dtype)


def _require(part: Tensor, shape: tuple[int, ...], vectors: TaskVectors, method: str) -> None:
    if part.shape != shape or part.dtype != torch.float32:
        raise _wrong(
            method, vectors, f"returned {_described(part)}, not float32 of shape {list(shape)}"
        )


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"{str(value.dtype).removeprefix('torch.')} of shape {list(value.shape)}"


def _wrong(method: str, vectors: TaskVectors, what: str) -> Refusal:
    return Refusal(f"{method}: tensor {vectors.name}: {what}")
