"""Checkpoints of PyTorch's own format: pytorch_model.bin, or shards of it.

The files hold a pickle, which could run any code. Only torch's reader of tensors alone is used
(`weights_only=True`): it maps the tensors into memory and refuses everything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TYPE_CHECKING

from wildmerge.checkpoints.dtypes import name_of
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.checkpoints.tensors import Checkpoint, require_new, state_of
from wildmerge.errors import Refusal

if TYPE_CHECKING:
    from torch import Tensor


class Pickled(Checkpoint):
    """A folder of `.bin` weights.

    Args:
        folder: the checkpoint's folder.
        files: its weight files.

    Raises:
        Refusal: a file is broken, or holds something that is no tensor.
    """

    def __init__(self, folder: Path, files: list[Path]) -> None:
        self.folder = folder
        self._states = {file: state_of(file) for file in files}
        self._tensors: dict[str, Tensor] = {}
        file_of: dict[str, Path] = {}
        for file in files:
            tensors = _load(file)
            require_new(tensors, file, file_of)
            self._tensors |= tensors
        self.tensors = {
            name: TensorInfo(name_of(tensor.dtype), tuple(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor as stored, mapped from its file."""
        return self._tensors[name]


def _load(file: Path) -> dict[str, Tensor]:
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise Refusal(
            f"{file}: holds code or objects beside its tensors and is not loaded; use a checkpoint "
            "saved as safetensors"
        ) from None
    except (RuntimeError, ValueError, EOFError, OSError):
        raise Refusal(
            f"{file}: cannot be read (broken, or of a format before PyTorch 1.6); fetch it again or "
            "save it as safetensors"
        ) from None
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items()
    ):
        raise Refusal(
            f"{file}: not a plain dictionary of tensors; save the model with save_pretrained"
        )
    # parameters that require gradients are saved as they are, and merging takes no gradients
    return {name: tensor.detach() for name, tensor in content.items()}
