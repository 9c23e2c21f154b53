"""Lazy reading of Hugging Face checkpoint folders: one safetensors file, or shards.

Opening a checkpoint reads headers only, which needs no torch, so that what does not fit together is
refused at once; a tensor's bytes are mapped into memory when it is asked for.
"""

from __future__ import annotations

import json
import math
import struct
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from wildmerge.checkpoints.dtypes import DTYPES, FLOATS
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json

if TYPE_CHECKING:
    from torch import Tensor

    from wildmerge.checkpoints.stored import File, StoredTensor


class Checkpoint(ABC):
    """A checkpoint: `tensors` maps names to dtype and shape, `checkpoint[name]` reads a tensor.

    Subclasses know how the weights are stored. `folder` is what messages call it, `remarks` say what a
    user may want to know of it.
    """

    folder: Path
    remarks: Sequence[str] = ()
    _states: dict[Path, tuple[int, ...]]
    tensors: Mapping[str, TensorInfo]

    @abstractmethod
    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file where it can be."""

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return a tensor that is read slice by slice where its file allows it."""
        return self[name]

    def require_unchanged(self) -> None:
        """Raise Refusal for a file of the weights that was changed since it was opened."""
        for file, state in self._states.items():
            if state != state_of(file):
                raise Refusal(
                    f"{file}: was changed while it was read; start again when nothing writes to it"
                )

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
        self._states = {file: state_of(file) for file in files}
        for file in files:
            header, start = _header(file)
            require_new(header, file, self._file_of)
            for name, entry in header.items():
                self.tensors[name] = TensorInfo(entry["dtype"], tuple(entry["shape"]))
                self._start_of[name] = start + entry["data_offsets"][0]
        self._open: dict[Path, Any] = {}
        self._descriptors: dict[Path, File] = {}

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file."""
        file = self._file_of[name]
        if file not in self._open:
            self._open[file] = safe_open(file, framework="pt")
        tensor: Tensor = self._open[file].get_tensor(name)
        return tensor

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return a tensor that is read slice by slice."""
        from wildmerge.checkpoints.stored import File, StoredTensor

        file, (dtype, shape) = self._file_of[name], self.tensors[name]
        if file not in self._descriptors:
            # of two threads that open it at once, one closes it again
            self._descriptors.setdefault(file, File(file))
        descriptor, start = self._descriptors[file], self._start_of[name]
        return StoredTensor(descriptor, start, DTYPES[dtype].torch, shape)


def require_new(names: Iterable[str], file: Path, file_of: dict[str, Path]) -> None:
    """Add the tensors of one more file to `file_of`; raises Refusal for one that another file has."""
    for name in names:
        if file_of.setdefault(name, file) != file:
            raise Refusal(
                f"{file}: tensor {name} stands in {file_of[name].name} too; delete the file that is not "
                "this checkpoint's, or save it again"
            )


def state_of(file: Path) -> tuple[int, ...]:
    """Return what changes when a file does: its place on the disk, its size and its times."""
    try:
        state = file.stat()
    except FileNotFoundError:
        return ()
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return name -> {dtype, shape, data_offsets} of a file, and where its data start.

    The library checks that ranges fit shapes, follow each other and end with the file.
    """
    try:
        with safe_open(file, framework="np"), open(file, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, dict[str, Any]] = json.loads(stream.read(length))
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise Refusal(f"{file}: cannot be read ({reason}); fetch the checkpoint again") from None
    header.pop("__metadata__", None)
    return header, 8 + length


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
        self._states = {}
        for checkpoint in dict.fromkeys(checkpoint for checkpoint, _ in sources.values()):
            self._states |= checkpoint._states

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as its checkpoint does."""
        checkpoint, source = self._sources[name]
        return checkpoint[source]

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return a tensor that is read slice by slice where its checkpoint can."""
        checkpoint, source = self._sources[name]
        return checkpoint.stored(source)
