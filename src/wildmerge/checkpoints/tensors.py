"""Lazy reading of Hugging Face checkpoint folders: one safetensors file, or shards.

Opening a checkpoint reads headers only; a tensor's bytes are mapped into memory when it is asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from wildmerge.errors import Refusal

FLOATS = {"F64", "F32", "F16", "BF16"}
"""Storage dtypes that are plain floating-point weights."""


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
        self._open = {file: _open(file) for file in self.files}
        self.tensors: dict[str, TensorInfo] = {}
        for file, handle in self._open.items():
            for name in handle.keys():  # noqa: SIM118 - not a dict
                part = handle.get_slice(name)
                self.tensors[name] = TensorInfo(file, part.get_dtype(), tuple(part.get_shape()))

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file."""
        tensor: Tensor = self._open[self.tensors[name].file].get_tensor(name)
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
    def dtype(self) -> torch.dtype:
        """The dtype of most of the weights."""
        sizes: dict[str, int] = {}
        for info in self.tensors.values():
            numel = 1
            for side in info.shape:
                numel *= side
            sizes[info.dtype] = sizes.get(info.dtype, 0) + numel
        names = {"F64": torch.float32, "F32": torch.float32, "F16": torch.float16}
        return names.get(max(sizes, key=lambda k: sizes[k], default="F32"), torch.bfloat16)


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


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise Refusal(f"{file}: cannot be read ({error}); fetch the checkpoint again") from None
