"""Opening a checkpoint folder as what it is: safetensors, `.bin`, or an adapter of a base."""

from __future__ import annotations

from pathlib import Path

from wildmerge.checkpoints.adapter import Adapted, is_adapter
from wildmerge.checkpoints.files import ADAPTER_CONFIG, weights_of
from wildmerge.checkpoints.pickled import Pickled
from wildmerge.checkpoints.tensors import Checkpoint, Safetensors
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
    weights = weights_of(folder)
    files = [folder / name for name in weights.files]
    pickled = files[0].suffix == ".bin"
    checkpoint: Checkpoint = Pickled(folder, files) if pickled else Safetensors(folder, files)
    if weights.config == ADAPTER_CONFIG:
        config = read_json(folder / ADAPTER_CONFIG, missing="an adapter needs it")
        checkpoint.config = {"peft_type": None} | config
    return checkpoint
