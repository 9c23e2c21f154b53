"""Opening a checkpoint folder as what it is: safetensors, `.bin`, or an adapter of a base."""

from __future__ import annotations

from pathlib import Path

from wildmerge.checkpoints.adapter import Adapted, is_adapter
from wildmerge.checkpoints.pickled import Pickled
from wildmerge.checkpoints.tensors import (
    Checkpoint,
    Safetensors,
    safetensors_files,
    weight_files,
)
from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json


def open_checkpoint(folder: str | Path, base: Checkpoint | None = None) -> Checkpoint:
    """Open a folder; headers and configs are read, weights are not.

    Args:
        folder: a checkpoint or a LoRA adapter.
        base: what an adapter is applied to.

    Raises:
        Refusal: the folder is missing or holds no weights, a file is broken, or an adapter is given
            without a base or does not fit it; the message names it.
    """
    weights = open_weights(folder)
    if not is_adapter(weights.config):
        return weights
    if base is None:
        raise Refusal(f"{folder}: an adapter, not a whole model; give it as an expert of its base")
    return Adapted(weights, base)


def open_weights(folder: str | Path) -> Checkpoint:
    """Open what a folder itself holds: of an adapter its factors and adapter_config.json."""
    folder = Path(folder)
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such checkpoint folder; check the path")
    if not holds_adapter(folder):
        return _model(folder)
    weights = _adapter(folder)
    path = folder / "adapter_config.json"
    weights.config = {"peft_type": None} | read_json(path, missing="an adapter needs it")
    return weights


def holds_adapter(folder: Path) -> bool:
    """Return whether a folder holds an adapter and no whole model beside it."""
    if not (folder / "adapter_config.json").exists():
        return False
    return not (safetensors_files(folder) or weight_files(folder, "pytorch_model", "bin"))


def _model(folder: Path) -> Checkpoint:
    if files := safetensors_files(folder):
        return Safetensors(folder, files)
    if files := weight_files(folder, "pytorch_model", "bin"):
        return Pickled(folder, files)
    raise Refusal(f"{folder}: no .safetensors or .bin weights; save the checkpoint as safetensors")


def _adapter(folder: Path) -> Checkpoint:
    if files := weight_files(folder, "adapter_model", "safetensors"):
        return Safetensors(folder, files)
    if files := weight_files(folder, "adapter_model", "bin"):
        return Pickled(folder, files)
    raise Refusal(f"{folder}: adapter_model.safetensors is missing; fetch the adapter again")
