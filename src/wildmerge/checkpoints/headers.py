"""What is known of a checkpoint without its weights: config, names, dtypes and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class TensorInfo(NamedTuple):
    """What a tensor is: safetensors' name of its dtype, shape."""

    dtype: str
    shape: tuple[int, ...]


class Headers(Protocol):
    """A checkpoint that was opened, or one in a lock, whose weights may be elsewhere."""

    @property
    def folder(self) -> Path | str:
        """What messages call it."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its config.json."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Dtype and shape of every tensor."""

    @property
    def tokenizer(self) -> Path | str | None:
        """Its tokenizer.json, if it has one."""
