"""The dtypes of stored tensors, by the names that safetensors has for them; torch is not imported."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Dtype(NamedTuple):
    """What a name of safetensors means: torch's name, bytes of an element, whether weights have it.

    `merged` is the output dtype of a model that is mostly stored so.
    """

    torch_name: str
    itemsize: int
    merged: str | None = None

    @property
    def torch(self) -> torch.dtype:
        """The dtype of torch; this imports torch."""
        import torch

        dtype: torch.dtype = getattr(torch, self.torch_name)
        return dtype


DTYPES = {
    "F64": Dtype("float64", 8, "float32"),
    "F32": Dtype("float32", 4, "float32"),
    "F16": Dtype("float16", 2, "float16"),
    "BF16": Dtype("bfloat16", 2, "bfloat16"),
    "I64": Dtype("int64", 8),
    "I32": Dtype("int32", 4),
    "I16": Dtype("int16", 2),
    "I8": Dtype("int8", 1),
    "U64": Dtype("uint64", 8),
    "U32": Dtype("uint32", 4),
    "U16": Dtype("uint16", 2),
    "U8": Dtype("uint8", 1),
    "C64": Dtype("complex64", 8),
    "BOOL": Dtype("bool", 1),
}
"""What merges read and write; files may hold other dtypes, which are not weights."""

FLOATS = frozenset(name for name, dtype in DTYPES.items() if dtype.merged)
"""Names of the dtypes of plain floating-point weights."""

_NAMES = {dtype.torch_name: name for name, dtype in DTYPES.items()}


def name_of(dtype: torch.dtype | str) -> str:
    """Return safetensors' name of a dtype of torch, or torch's own where safetensors has none."""
    name = str(dtype).removeprefix("torch.")
    return _NAMES.get(name, name)
