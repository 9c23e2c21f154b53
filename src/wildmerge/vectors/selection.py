"""Exact selection of the k largest magnitudes of each task vector, by lowest flat index on ties.

The cut of a task vector is two numbers: a magnitude and the flat index of the last entry of exactly that
magnitude which is still kept. With them trimming is elementwise, whatever the chunks.

A random sample brackets the magnitude; one pass over the task vectors counts what lies above the bracket
and collects the few entries inside, among which the k-th is looked up. A bracket that missed is widened,
so that luck decides the time and never the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wildmerge.vectors.elementwise import split
from wildmerge.vectors.task_vectors import TaskVectors

_DEVIATIONS = 4.0
"""Half the width of a bracket in standard deviations of the sampled rank: one in ten thousand misses."""
_CROWDED = 1 / 16
"""Share of a chunk from which on the entries inside are stored with multiplicities: differences of
16-bit weights take few values, and many may be equal."""


class Rows(Protocol):
    """What can be cut: the task vectors themselves, or a row derived from them."""

    @property
    def numel(self) -> int:
        """The entries of each row."""

    def __len__(self) -> int:
        """Return the number of rows."""

    def sample(self, count: int) -> Tensor:
        """Return entries of every row from the same random places, (rows, count)."""

    def places(self) -> Iterator[slice]:
        """Yield the slices of the flattened tensor in order."""

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (place, chunk of all rows)."""

    def chunk(self, index: int, at: slice) -> Tensor:
        """Return a chunk of one row, (c,)."""


@dataclass(frozen=True)
class Derived:
    """One row that follows from all task vectors, such as their variance: `of` maps (n, c) to (c,)."""

    vectors: TaskVectors
    of: Callable[[Tensor], Tensor]

    @property
    def numel(self) -> int:
        """The entries of the row."""
        return self.vectors.numel

    def __len__(self) -> int:
        """Return 1."""
        return 1

    def sample(self, count: int) -> Tensor:
        """See `Rows`."""
        return self.of(self.vectors.sample(count))[None]

    def places(self) -> Iterator[slice]:
        """See `Rows`."""
        return self.vectors.places()

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """See `Rows`."""
        yield from ((at, self.of(deltas)[None]) for at, deltas in self.vectors.chunks())

    def chunk(self, index: int, at: slice) -> Tensor:
        """See `Rows`."""
        rows = [self.vectors.chunk(i, at) for i in range(len(self.vectors))]
        return self.of(torch.stack(rows))


@dataclass(frozen=True)
class Cut:
    """Where a task vector is cut: the smallest magnitude kept, and the last flat index where it is."""

    magnitude: float
    last: int

    def trim_(self, delta: Tensor, at: slice) -> None:
        """Zero, in place, what is cut off from a chunk (c,) of the task vector."""
        if at.stop <= self.last + 1:
            _shrink_(delta, self._below)
        elif at.start > self.last:
            _shrink_(delta, self.magnitude)
        else:
            middle = self.last + 1 - at.start
            _shrink_(delta[:middle], self._below)
            _shrink_(delta[middle:], self.magnitude)

    @cached_property
    def _below(self) -> float:
        """The next smaller float32: what exceeds it is at least the magnitude."""
        return float(np.nextafter(np.float32(self.magnitude), np.float32(0)))


def _shrink_(delta: Tensor, limit: float) -> None:
    """Zero, in place, what does not exceed the limit in magnitude."""
    torch.hardshrink(delta, limit, out=delta)


def cuts(vectors: Rows, kept: int, sampled: int | None = None) -> list[Cut]:
    """Find the cut that keeps exactly `kept` entries (1 <= kept < numel) of every task vector.

    Args:
        vectors: the task vectors of one tensor, or a row derived from them.
        kept: how many entries of each survive.
        sampled: entries to look at for a first guess; a choice of speed, never of result.
    """
    return cuts_at(vectors, [kept], sampled)[0]


def cuts_at(vectors: Rows, counts: Sequence[int], sampled: int | None = None) -> list[list[Cut]]:
    """Find the cuts that keep each of some counts of entries, in one pass: a list of n for each."""
    sampled = sampled or max(1 << 12, 2 * round(vectors.numel ** (2 / 3)))
    sizes = -np.sort(-vectors.sample(sampled).abs_().cpu().numpy())
    wanted = [(i, kept) for kept in counts for i in range(len(vectors))]
    found: dict[tuple[int, int], Cut] = {}
    deviations = _DEVIATIONS
    while len(found) < len(wanted):
        nears = {
            (i, kept): _Near(*_bracket(sizes[i], kept / vectors.numel, deviations))
            for i, kept in wanted
            if (i, kept) not in found
        }
        for _, deltas in vectors.chunks():
            for (i, _), near in nears.items():
                near.add(deltas[i])
        for (i, kept), near in nears.items():
            if 0 < kept - near.above <= near.inside:
                found[i, kept] = _look_up(vectors, i, near, kept - near.above)
        deviations *= 8
    return [[found[i, kept] for i in range(len(vectors))] for kept in counts]


def _bracket(sizes: NDArray[np.float32], share: float, deviations: float) -> tuple[float, float]:
    """Return magnitudes that enclose the one of rank share * numel, from a descending sample."""
    rank = share * len(sizes)
    margin = deviations * math.sqrt(max(rank * (1 - share), 1.0)) + 1
    first, last = math.floor(rank - margin), math.ceil(rank + margin)
    low = float(sizes[last]) if last < len(sizes) else 0.0
    return low, float(sizes[first]) if first >= 0 else math.inf


@dataclass
class _Near:
    """The entries of one task vector near its cut: those above `high`, and those in [low, high].

    `values` and `counts` hold an entry a chunk: the values inside, and how often each occurs (None:
    once).
    """

    low: float
    high: float
    above: int = 0
    inside: int = 0
    values: list[NDArray[np.float32]] = field(default_factory=list)
    counts: list[NDArray[np.int64] | None] = field(default_factory=list)

    def add(self, delta: Tensor) -> None:
        """Take in the next chunk, (c,)."""
        above, values = split(delta, self.low, self.high)
        count: int = len(values)
        counts: NDArray[np.int64] | None = None
        if self.low == self.high:
            values, counts = np.array([self.low], np.float32), np.array([count])
        elif count > _CROWDED * len(delta):
            values, counts = np.unique(values, return_counts=True)
        self.above += above
        self.inside += count
        self.values.append(values)
        self.counts.append(counts)


def _look_up(vectors: Rows, index: int, near: _Near, rank: int) -> Cut:
    """Return the cut at the entry of this rank (from 1) inside of the bracket."""
    magnitude, spare = _select(near, rank)
    before = 0
    for at, values, counts in zip(vectors.places(), near.values, near.counts, strict=True):
        equal = values == magnitude
        found = int(np.count_nonzero(equal) if counts is None else counts[equal].sum())
        if before + found >= spare:
            places = torch.nonzero(vectors.chunk(index, at).abs_() == magnitude).reshape(-1)
            return Cut(magnitude, at.start + int(places[spare - before - 1]))
        before += found
    raise AssertionError("more entries of a magnitude were counted than there are")


def _select(near: _Near, rank: int) -> tuple[float, int]:
    """Return the magnitude of this rank inside, and how many entries of exactly this size are kept."""
    values = np.concatenate(near.values)
    if all(counts is None for counts in near.counts):
        values.partition(len(values) - rank)
        largest = values[len(values) - rank :]
        return float(largest[0]), int(np.count_nonzero(largest == largest[0]))
    pairs = zip(near.values, near.counts, strict=True)
    counts = np.concatenate([np.ones(len(v), np.int64) if c is None else c for v, c in pairs])
    order = np.argsort(-values)
    magnitude = values[order[np.searchsorted(counts[order].cumsum(), rank)]]
    return float(magnitude), rank - int(counts[values > magnitude].sum())
