"""What is done to chunks of task vectors: by compiled loops on a CPU, by torch elsewhere.

A chunk has shape (n, c), one row an expert. The two ways give the same numbers, up to the order in
which they sum. The loops also read: bfloat16 weights in files are used as they arrive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildmerge.checkpoints.stored import StoredTensor

BLOCK = 1 << 9
"""Chunks start at multiples of this, so that sums over a chunk group the same elements, whatever the
size of a chunk."""

Weights = Sequence[Tensor | StoredTensor]
"""The flattened weights of some experts."""


def subtract(experts: Weights, at: slice, base: Tensor, out: Tensor) -> float:
    """Write a chunk of the task vectors to `out`.

    Args:
        experts: n flattened tensors of any float dtypes.
        at: the elements of the chunk.
        base: the same elements of the base, (c,) float32.
        out: receives the task vectors, (n, c) float32.

    Returns:
        The sum of `out`: not finite when one of them is not.
    """
    if (loops := _loops(out)) and (places := _places(experts, at)):
        total = float(loops.subtract(*places, base.numpy(), out.numpy()))
        if math.isfinite(total):
            return total  # else: the other way says what could not be read
    for row, expert in zip(out.unbind(), experts, strict=True):
        row.copy_(expert[at].to(row.device))
    return float(out.sub_(base).sum())


def subtract_and_add_up(experts: Weights, at: slice, base: Tensor, out: Tensor) -> float:
    """Write the sum of a chunk of the task vectors to `out` (c,); else as `subtract`."""
    loops, places = _loops(out), _places(experts, at)
    if not (loops and places and loops.add_up(*places, base.numpy(), out.numpy())):
        deltas = torch.empty(len(experts), len(out), device=out.device)
        subtract(experts, at, base, deltas)
        add_up(deltas, out=out)
    return float(out.sum())


def add_up(deltas: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum over the experts, (n, c) to (c,), in `out` if it is given."""
    if deltas.device.type != "cpu":
        return torch.sum(deltas, 0, out=out)
    into = None if out is None else out.numpy()
    return torch.from_numpy(np.add.reduce(deltas.numpy(), 0, out=into))  # faster than torch


def inner_products(deltas: Tensor, exact: bool = False) -> Tensor:
    """Return the inner products of the rows, (n, n) float64.

    They are summed in float32 within blocks of BLOCK and in float64 over them: rounding then stays a
    millionth of the cosines of even unrelated experts. With `exact` all is float64.
    """
    n, width = deltas.shape
    whole = 0 if exact else width // BLOCK * BLOCK
    rest = deltas[:, whole:].double()
    products = rest @ rest.T
    if not whole:
        return products
    if loops := _loops(deltas):
        loops.inner_products(deltas.numpy(), BLOCK, products.numpy())
        return products
    blocks = deltas[:, :whole].reshape(n, -1, BLOCK).transpose(0, 1)
    return products + (blocks @ blocks.mT).sum(0, dtype=torch.float64)


def add_inner_products(deltas: Tensor, origin: Tensor, out: Tensor) -> None:
    """Add the inner products of the rows of (n, c), each plus `origin` (c,), to `out` (n, n) float64.

    All of it is float64, and only the lower triangle is right.
    """
    if loops := _loops(deltas):
        loops.add_inner_products(deltas.numpy(), origin.numpy(), BLOCK, out.numpy())
        return
    wide = deltas.double() + origin
    out += (wide @ wide.T).to(out.device)


def add_moments(deltas: Tensor, out: Tensor) -> None:
    """Add each row's sum of magnitudes and sum of squares, of (n, c), to `out` (2, n) float64."""
    if loops := _loops(deltas):
        loops.add_moments(deltas.numpy(), BLOCK, out.numpy())
        return
    wide = deltas.double()
    out += torch.stack([wide.abs().sum(1), wide.square().sum(1)]).to(out.device)


def variance(deltas: Tensor) -> Tensor:
    """Return the population variance over the rows of (n, c): (c,) float32, computed in float64."""
    if loops := _loops(deltas):
        found = torch.empty(deltas.shape[1])
        loops.variance(deltas.numpy(), found.numpy())
        return found
    wide, n = deltas.double(), len(deltas)
    return (add_up((wide - add_up(wide) / n).square()) / n).float()


def split(row: Tensor, low: float, high: float) -> tuple[int, NDArray[np.float32]]:
    """Return how many entries of (c,) exceed `high` in magnitude, and the magnitudes in [low, high]."""
    if loops := _loops(row):
        inside = np.empty(len(row), np.float32)
        above, count = loops.split(row.numpy(), np.float32(low), np.float32(high), inside)
        return above, inside[:count].copy()
    sizes = row.abs()
    above = int((sizes > high).sum())
    return above, sizes[(sizes >= low) & (sizes <= high)].cpu().numpy()


def elect(deltas: Tensor, weights: list[float]) -> tuple[Tensor, Tensor]:
    """Sum the entries of the elected sign: that of the weighted sum of all of them, + for zero.

    Of numbers with sum T and sum of magnitudes A, those of T's sign sum to (T + sign(T) A) / 2; it
    loses no accuracy, because they are the larger part of A.

    Args:
        deltas: the entries, (n, c).
        weights: of the rows, positive.

    Returns:
        The sum of the entries that agree, and the sum of their weights, both (c,) float32.
    """
    rows = torch.tensor(weights, dtype=torch.float32, device=deltas.device)
    if loops := _loops(deltas):
        found = torch.empty(2, deltas.shape[1])
        loops.elect(deltas.numpy(), rows.numpy(), *found.numpy())
        return found[0], found[1]
    weighted = deltas * rows[:, None]
    total, size = weighted.sum(0), weighted.abs().sum(0)
    plus, minus = ((rows[:, None] * side).sum(0) for side in (deltas > 0, deltas < 0))
    up = total >= 0
    return (total + torch.where(up, size, -size)) / 2, torch.where(up, plus, minus)


def count_wanted(deltas: Tensor, total: Tensor, factor: float) -> Tensor:
    """Count the experts to whom an element matters beside the others: |D_i| > factor * |total - D_i|.

    Args:
        deltas: the task vectors, (n, c) float32.
        total: what was merged of them, (c,) float32.
        factor: of the rest, not negative.

    Returns:
        How many, (c,) float32.
    """
    if loops := _loops(deltas):
        counts = torch.empty_like(total)
        loops.count_wanted(deltas.numpy(), total.numpy(), np.float32(factor), counts.numpy())
        return counts
    return (deltas.abs() > (total - deltas).abs() * float(np.float32(factor))).sum(0).float()


def erase(deltas: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the weighted entries whose sign is that of the plain sum, + for zero.

    Args:
        deltas: the entries, (n, c).
        weights: of the rows, (n,) float32, none negative.

    Returns:
        The weighted sum of the entries that agree, and the sum of their weights, both (c,) float32.
    """
    if loops := _loops(deltas):
        found = torch.empty(2, deltas.shape[1])
        loops.erase(deltas.numpy(), weights.numpy(), *found.numpy())
        return found[0], found[1]
    agree = torch.where(deltas.sum(0) >= 0, deltas > 0, deltas < 0) * weights[:, None]
    return (agree * deltas).sum(0), agree.sum(0)


def _loops(tensor: Tensor) -> ModuleType | None:
    """Return the compiled loops, imported when they are first needed, for a tensor on a CPU."""
    if tensor.device.type != "cpu":
        return None
    from wildmerge.vectors import loops

    return loops


def _places(experts: Weights, at: slice) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return files and bytes where a chunk starts, if all experts are bfloat16 in files."""
    stored = [e for e in experts if isinstance(e, StoredTensor) and e.dtype == torch.bfloat16]
    if len(stored) < len(experts):
        return None
    files, offsets = zip(*(tensor.place(at) for tensor in stored), strict=True)
    return np.array(files, np.int64), np.array(offsets, np.int64)
