"""Tensors that stay in their files: a piece is read when it is asked for.

Reading beats mapping here. A mapped file costs a page fault every few kilobytes, in virtual machines and
on network file systems an expensive one, and fills the process's resident memory with what it has used.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from wildmerge.errors import Refusal

_WINDOW = 1 << 20
"""Elements that are read at once to pick some of them out."""
_AHEAD = 1 << 22
"""Bytes that the kernel is asked to read ahead of a piece. Several tensors of a file are read at once,
so that it cannot see by itself that each is read in order."""


class File:
    """A file that is open for reading for as long as this object lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def holds(self, position: int) -> bool:
        """Return whether a byte is in memory; that costs a hundredth of reading ahead in vain."""
        try:
            return os.preadv(self.number, [bytearray(1)], position, os.RWF_NOWAIT) == 1
        except OSError:  # it is not, or this file system does not say
            return False

    def __del__(self) -> None:
        """Close the file."""
        if hasattr(self, "number"):
            os.close(self.number)


class StoredTensor:
    """A flattened tensor in a file: a slice of it is a 1-D tensor of its elements, freshly read.

    Args:
        file: the file that holds it.
        start: its first byte there.
        dtype: as stored.
        shape: the shape that it has unflattened.
    """

    def __init__(
        self,
        file: File,
        start: int,
        dtype: torch.dtype,
        shape: tuple[int, ...],
    ) -> None:
        self.dtype, self.shape = dtype, shape
        self._file, self._start = file, start
        self._advised = 0

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def __getitem__(self, index: slice | Tensor) -> Tensor:
        """Return the elements of a slice without a step, or those at ascending flat places (k,)."""
        if isinstance(index, Tensor):
            return self._gather(index)
        begin, end, _ = index.indices(self.numel())
        piece = torch.empty(max(end - begin, 0), dtype=self.dtype)
        file, position = self.place(slice(begin, end))
        view = piece.view(torch.uint8).numpy().data
        while view:
            count = os.preadv(file, [view], position)
            if not count:
                raise Refusal(f"{self._file.path}: shorter than it was; fetch the checkpoint again")
            view, position = view[count:], position + count
        return piece

    def place(self, at: slice) -> tuple[int, int]:
        """Return the file descriptor and the byte where a slice starts, which is read ahead."""
        size = self.dtype.itemsize
        begin, end = at.start * size, at.stop * size
        if end > self._advised:  # once in every few slices
            self._advised = min(end + _AHEAD, self.numel() * size)
            if not self._file.holds(self._start + self._advised - 1):
                length = self._advised - begin
                os.posix_fadvise(
                    self._file.number, self._start + begin, length, os.POSIX_FADV_WILLNEED
                )
        return self._file.number, self._start + begin

    def _gather(self, places: Tensor) -> Tensor:
        """Read all of the tensor: with places in most pages, less than to fault them in one by one."""
        starts = torch.arange(0, self.numel(), _WINDOW)
        parts = places.tensor_split(torch.searchsorted(places, starts[1:]))
        found = [
            self[start : start + _WINDOW][part - start]
            for start, part in zip(starts.tolist(), parts, strict=True)
            if len(part)
        ]
        return torch.cat(found) if found else torch.empty(0, dtype=self.dtype)


def flat(tensor: Tensor | StoredTensor) -> Tensor | StoredTensor:
    """Return a tensor as one of a single dimension, which a stored one is anyway."""
    return tensor.reshape(-1) if isinstance(tensor, Tensor) else tensor
