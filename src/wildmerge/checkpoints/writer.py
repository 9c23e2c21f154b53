"""Writing a merged checkpoint: shards laid out from the known shapes and filled in place."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wildmerge.checkpoints.dtypes import DTYPES

SHARD_BYTES = 5_000_000_000
_ALIGNMENT = 64


class _Place(NamedTuple):
    """Where a tensor lies: descriptor of its file, first byte, bytes, dtype."""

    file: int
    offset: int
    nbytes: int
    dtype: torch.dtype


class Writer:
    """Safetensors shards of known layout in `folder`; `write` puts elements where they belong.

    Args:
        folder: an existing folder.
        layout: tensor name -> (dtype name such as "BF16", shape), in the order of the file.
        shard_bytes: largest shard.
    """

    def __init__(
        self,
        folder: Path,
        layout: Mapping[str, tuple[str, tuple[int, ...]]],
        shard_bytes: int = SHARD_BYTES,
    ) -> None:
        self._places: dict[str, _Place] = {}
        self._files: list[int] = []
        shards = _shards(layout, shard_bytes)
        names = [
            "model.safetensors"
            if len(shards) == 1
            else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
            for i in range(len(shards))
        ]
        for file, shard in zip(names, shards, strict=True):
            self._create(folder / file, {name: layout[name] for name in shard})
        if len(shards) > 1:
            _write_index(folder, layout, dict(zip(names, shards, strict=True)))

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Write `values` (any float dtype, 1-D) from element `start` of the flattened tensor."""
        place = self._places[name]
        stored = values.to(place.dtype).contiguous().cpu()
        view = stored.view(torch.uint8).numpy().data
        position = place.offset + start * place.dtype.itemsize
        while view:
            written = os.pwrite(place.file, view, position)
            view, position = view[written:], position + written

    def finish(self, name: str) -> None:
        """Have a complete tensor go to the disk while others are worked on, not only by `close`."""
        place = self._places[name]
        # starts writing what is dirty; pages that are being written stay in the cache
        os.posix_fadvise(place.file, place.offset, place.nbytes, os.POSIX_FADV_DONTNEED)

    def close(self, *, keep: bool = True) -> None:
        """Close the files, on the disk if they are to be kept.

        What will be removed is not flushed first: gigabytes would outlast the grace of a scheduler.
        """
        for file in self._files:
            if keep:
                os.fsync(file)
            os.close(file)
        self._files = []

    def _create(self, path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        size = 0
        for name, (dtype, shape) in tensors.items():
            end = size + _nbytes(dtype, shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [size, end]}
            size = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-(len(text) + 8) % _ALIGNMENT)
        file = os.open(path, os.O_CREAT | os.O_RDWR, 0o644)
        self._files.append(file)
        os.write(file, struct.pack("<Q", len(text)) + text)
        os.posix_fallocate(file, 0, 8 + len(text) + size)  # a full disk is known before any work
        for name, (dtype, _) in tensors.items():
            begin, end = header[name]["data_offsets"]  # type: ignore[index]
            offset = 8 + len(text) + begin
            self._places[name] = _Place(file, offset, end - begin, DTYPES[dtype].torch)


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * DTYPES[dtype].itemsize


def _shards(layout: Mapping[str, tuple[str, tuple[int, ...]]], limit: int) -> list[list[str]]:
    """Fill shards in order; a tensor above the limit gets a shard of its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, (dtype, shape) in layout.items():
        nbytes = _nbytes(dtype, shape)
        if shards[-1] and size + nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    return shards


def _write_index(
    folder: Path,
    layout: Mapping[str, tuple[str, tuple[int, ...]]],
    shards: Mapping[str, list[str]],
) -> None:
    total = sum(_nbytes(dtype, shape) for dtype, shape in layout.values())
    weight_map = {name: file for file, names in shards.items() for name in names}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
