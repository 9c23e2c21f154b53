"""Exact selection of the k largest magnitudes of each task vector, by lowest flat index on ties.

The cut of a task vector is two numbers: a magnitude and the flat index of the last entry of exactly that
magnitude which is still kept. With them trimming is elementwise, whatever the chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wildmerge.task_vectors import TaskVectors


@dataclass(frozen=True)
class Cuts:
    """Where each of n task vectors is cut: `magnitude` (n, 1) float32, `last` (n, 1) int64."""

    magnitude: Tensor
    last: Tensor

    def trim(self, deltas: Tensor, at: slice) -> Tensor:
        """Zero the entries of a chunk (n, c) that are not among the k largest of their row."""
        size = deltas.abs()
        index = torch.arange(at.start, at.stop, device=deltas.device)
        kept = (size > self.magnitude) | ((size == self.magnitude) & (index <= self.last))
        return torch.where(kept, deltas, 0.0)


def cuts(vectors: TaskVectors, kept: int) -> Cuts:
    """Find the cut that keeps exactly `kept` entries (1 <= kept < numel) of every task vector."""
    found = [_cut(vectors[i].reshape(-1).abs(), kept) for i in range(len(vectors))]
    magnitude, last = zip(*found, strict=True)
    return Cuts(
        torch.tensor(magnitude, device=vectors.device)[:, None],
        torch.tensor(last, device=vectors.device)[:, None],
    )


def _cut(size: Tensor, kept: int) -> tuple[float, int]:
    magnitude = torch.kthvalue(size, len(size) - kept + 1).values
    spare = kept - int((size > magnitude).sum())  # entries of exactly this magnitude that stay
    equal = torch.nonzero(size == magnitude).reshape(-1)
    return float(magnitude), int(equal[spare - 1])
