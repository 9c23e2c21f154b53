"""Lazy reading of Hugging Face checkpoint folders: one safetensors file, or shards.

Opening a checkpoint reads headers only, which needs no torch, so that what does not fit together is
refused at once; a tensor's bytes are mapped into memory when it is asked for.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.errors import Refusal

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = {"F64", "F32", "F16", "BF16"}
"""Storage dtypes that are plain floating-point weights."""
_OUTPUT_DTYPES = {"F64": "float32", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor is and what it is: file, safetensors dtype name, shape."""

    file: Path
    dtype: str
    shape: tuple[int, ...]


class Checkpoint:
    """A checkpoint folder; `tensors` maps every tensor's name to its place, dtype and shape.

    Raises:
        Refusal: the folder is missing, has no config.json or no safetensors weights, or a file is
            broken; the message names it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise Refusal(f"{folder}: no such checkpoint folder; check the path")
        self.files = _weight_files(self.folder)
        self.tensors: dict[str, TensorInfo] = {}
        for file in self.files:
            for name, entry in _header(file).items():
                self.tensors[name] = TensorInfo(file, entry["dtype"], tuple(entry["shape"]))
        self._open: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file."""
        file = self.tensors[name].file
        if file not in self._open:
            from safetensors import safe_open

            self._open[file] = safe_open(file, framework="pt")
        tensor: Tensor = self._open[file].get_tensor(name)
        return tensor

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of config.json."""
        path = self.folder / "config.json"
        try:
            config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except OSError:
            raise Refusal(f"{path}: missing; a checkpoint needs its config.json") from None
        except json.JSONDecodeError as error:
            raise Refusal(f"{path}: not valid JSON ({error.msg}); fetch it again") from None
        return config

    @property
    def dtype(self) -> str:
        """The dtype of most of the weights, as an output dtype: "bfloat16", "float16" or "float32"."""
        sizes: Counter[str] = Counter()
        for info in self.tensors.values():
            if info.dtype in FLOATS:
                sizes[info.dtype] += math.prod(info.shape)
        return _OUTPUT_DTYPES[sizes.most_common(1)[0][0] if sizes else "F32"]


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder: those of the index, or all."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (json.JSONDecodeError, KeyError, AttributeError):
            raise Refusal(f"{index}: not a weight index; fetch the checkpoint again") from None
        for name in names:
            if not (folder / name).exists():
                raise Refusal(f"{folder / name}: missing, but the index names it; fetch it again")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise Refusal(f"{folder}: no .safetensors weights; save the checkpoint as safetensors")
    return files


def _header(file: Path) -> dict[str, dict[str, Any]]:
    """Return name -> {dtype, shape, data_offsets} of a safetensors file that is complete."""
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
            return header
        problem = "its size is not what its header says"
    raise Refusal(f"{file}: cannot be read ({problem}); fetch the checkpoint again")
