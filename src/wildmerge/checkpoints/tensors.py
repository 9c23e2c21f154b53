"""Lazy reading of Hugging Face checkpoint folders: one safetensors file, or shards.

Opening a checkpoint reads headers only, which needs no torch, so that what does not fit together is
refused at once; a tensor's bytes are mapped into memory when it is asked for.
"""

from __future__ import annotations

import json
import math
import re
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.checkpoints.dtypes import DTYPES, FLOATS
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from wildmerge.checkpoints.stored import File, StoredTensor

_LARGEST_HEADER = 100_000_000
_NOT_THE_MODEL = ("adapter_", "consolidated")  # an adapter beside it, the same weights once more


class Checkpoint(ABC):
    """A checkpoint: `tensors` maps names to dtype and shape, `checkpoint[name]` reads a tensor.

    Subclasses know how the weights are stored. `folder` is what messages call it.
    """

    folder: Path
    tensors: Mapping[str, TensorInfo]

    @abstractmethod
    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file where it can be."""

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return a tensor that is read slice by slice where its file allows it."""
        return self[name]

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        return read_json(self.folder / "config.json", missing="a checkpoint needs its config.json")

    @property
    def tokenizer(self) -> Path | None:
        """The file that says which row of the embedding is which token's, if there is one."""
        path = self.folder / "tokenizer.json"
        return path if path.exists() else None

    @property
    def dtype(self) -> str:
        """The dtype of most of the weights, as an output dtype: "bfloat16", "float16" or "float32"."""
        sizes: Counter[str] = Counter()
        for info in self.tensors.values():
            if info.dtype in FLOATS:
                sizes[info.dtype] += math.prod(info.shape)
        return DTYPES[sizes.most_common(1)[0][0] if sizes else "F32"].merged or "float32"


class Safetensors(Checkpoint):
    """A folder of safetensors weights.

    Args:
        folder: the checkpoint's folder.
        files: its weight files.

    Raises:
        Refusal: a file is broken; the message names it.
    """

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self.folder = folder
        self.tensors: dict[str, TensorInfo] = {}
        self._file_of: dict[str, Path] = {}
        self._start_of: dict[str, int] = {}
        for file in files:
            header, start = _header(file)
            for name, entry in header.items():
                self.tensors[name] = TensorInfo(entry["dtype"], tuple(entry["shape"]))
                self._start_of[name] = start + entry["data_offsets"][0]
                if self._file_of.setdefault(name, file) != file:
                    raise Refusal(
                        f"{file}: tensor {name} stands in {self._file_of[name].name} too; fetch the "
                        "checkpoint again with its index"
                    )
        self._open: dict[Path, Any] = {}
        self._descriptors: dict[Path, File] = {}

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file."""
        file = self._file_of[name]
        if file not in self._open:
            from safetensors import safe_open

            self._open[file] = safe_open(file, framework="pt")
        tensor: Tensor = self._open[file].get_tensor(name)
        return tensor

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return a tensor that is read slice by slice."""
        from wildmerge.checkpoints.stored import File, StoredTensor

        file, (dtype, shape) = self._file_of[name], self.tensors[name]
        if (
            file not in self._descriptors
        ):  # of two threads that open it at once, one closes it again
            self._descriptors.setdefault(file, File(file))
        descriptor, start = self._descriptors[file], self._start_of[name]
        return StoredTensor(descriptor, start, DTYPES[dtype].torch, shape)


def weight_files(folder: Path, stem: str, suffix: str) -> list[Path]:
    """Return a folder's weight files: those of its index, or STEM.SUFFIX, or all of its shards.

    Raises:
        Refusal: a file that the index or the shards' numbers promise is missing.
    """
    index = folder / f"{stem}.{suffix}.index.json"
    if index.exists():
        content = read_json(index, missing="fetch the checkpoint again")
        try:
            names = sorted(set(content["weight_map"].values()))
        except (KeyError, AttributeError, TypeError):
            raise Refusal(f"{index}: not a weight index; fetch the checkpoint again") from None
        return [_existing(folder / name, "the index names it") for name in names]
    single = folder / f"{stem}.{suffix}"
    if single.exists():
        return [single]
    for file in sorted(folder.glob(f"{stem}-*-of-*.{suffix}")):
        if match := re.fullmatch(rf"{stem}-0*1-of-(\d+)\.{suffix}", file.name):
            digits, count = len(match[1]), int(match[1])
            shards = [f"{stem}-{i + 1:0{digits}d}-of-{match[1]}.{suffix}" for i in range(count)]
            return [_existing(folder / shard, f"there are {count} shards") for shard in shards]
    return []


def safetensors_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a folder's model, whatever they are called."""
    others = [
        file
        for file in sorted(folder.glob("*.safetensors"))
        if not file.name.startswith(_NOT_THE_MODEL)
    ]
    return weight_files(folder, "model", "safetensors") or others


def _existing(file: Path, why: str) -> Path:
    if not file.exists():
        raise Refusal(f"{file}: missing, but {why}; fetch it again")
    return file


def _header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return name -> {dtype, shape, data_offsets} of a complete file, and where its data start."""
    try:
        with open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            text = stream.read(length) if length < _LARGEST_HEADER else b""
        header: dict[str, dict[str, Any]] = json.loads(text)
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        problem = error.strerror or str(error)
    except (ValueError, struct.error, KeyError, TypeError, AttributeError):
        problem = "no safetensors header"
    else:
        if file.stat().st_size == 8 + length + end:
            return header, 8 + length
        problem = "its size is not what its header says"
    raise Refusal(f"{file}: cannot be read ({problem}); fetch the checkpoint again")


class View(Checkpoint):
    """Tensors of other checkpoints under names of its own.

    Args:
        folder: what messages call it.
        config: its configuration.
        tensors: dtype and shape of each tensor as it is given out.
        sources: name -> the checkpoint that holds the tensor, and its name there.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        tensors: Mapping[str, TensorInfo],
        sources: Mapping[str, tuple[Checkpoint, str]],
    ) -> None:
        self.folder, self.config = folder, config
        self.tensors, self._sources = tensors, sources

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as its checkpoint does."""
        checkpoint, source = self._sources[name]
        return checkpoint[source]

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return a tensor that is read slice by slice where its checkpoint can."""
        checkpoint, source = self._sources[name]
        return checkpoint.stored(source)
