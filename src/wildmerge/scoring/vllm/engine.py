"""The `vllm` backend: lm-eval's VLLM model, with one engine for all models of a base.

An engine takes a minute to start and a second to read other weights. Models of the same architecture,
shapes and tokenizer are swapped in place, and what the engine then computes with is compared with the
checkpoint.
"""

from __future__ import annotations

import gc
import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

import torch

from wildmerge.checkpoints.files import weights_of
from wildmerge.checkpoints.heads import HEAD, is_tied
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal
from wildmerge.scoring.vllm.weight_probe import checkpoint_sums, same_sums
from wildmerge.storage.folders import private_folder

logger = logging.getLogger(__name__)

DEVICE_SHARE = 0.7  # of a GPU's memory, for the engine; merging needs some while the engine lives
ABOUT_FILES = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures"}
EMBEDDING = "model.embed_tokens.weight"


class Engine:
    """Holds at most one vLLM engine and gives lm-eval's model of it.

    Args:
        dtype: of weights and arithmetic, as in a study.
        device: "cpu", "cuda" or "cuda:i".
        scratch: an existing folder for links to checkpoints.
        options: more arguments of vLLM's `LLM`.
    """

    def __init__(self, dtype: str, device: str, scratch: Path, **options: Any) -> None:
        self._dtype, self._device, self._scratch = dtype, device, scratch
        self._options = options
        _, _, index = device.partition(":")
        self._visible = _visible(int(index)) if index else None  # of the devices seen at first
        self._layout: Any = None
        self._tied = self._swaps = False
        self._lm: Any = None
        self.starts = 0

    def load(self, folder: Path) -> Any:
        """Return lm-eval's VLLM with the weights of a model folder.

        Raises:
            Refusal: vLLM is not installed, or the engine keeps other weights than the folder's.
        """
        checkpoint = open_checkpoint(folder)
        layout = _layout(checkpoint)
        tied = is_tied(checkpoint)
        same_head = tied == self._tied or (
            tied and weights_of(folder).files[0].endswith(".safetensors")
        )
        if self._lm is not None and self._swaps and same_head and layout == self._layout:
            self._swap(checkpoint, tied)
        else:
            self._start(checkpoint)
            self._layout, self._tied = layout, tied
        return self._lm

    def close(self) -> None:
        """Stop the engine and free its memory."""
        if self._lm is not None:
            self._lm.model.llm_engine.engine_core.shutdown()
            self._lm = None
            gc.collect()

    def _start(self, checkpoint: Checkpoint) -> None:
        self.close()
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()
            if self._visible is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self._visible
        try:
            from lm_eval.models.vllm_causallms import VLLM
        except ImportError as error:
            raise Refusal(
                f"backend vllm: {error}; install wildmerge[vllm] or choose prefix"
            ) from None
        options: dict[str, Any] = {"gpu_memory_utilization": DEVICE_SHARE}
        if self._device == "cpu":
            options = {"enforce_eager": True}  # compiling takes longer than it saves there
        self._lm = VLLM(
            str(checkpoint.folder),
            dtype=self._dtype,
            trust_remote_code=False,
            worker_extension_cls="wildmerge.scoring.vllm.weight_probe.WeightProbe",
            **options | self._options,
        )
        self.starts += 1
        self._swaps = self._has_weights_of(checkpoint)
        if not self._swaps:
            logger.warning(
                "vllm keeps this architecture's weights in a form that cannot be compared with "
                "checkpoints; every model gets an engine of its own"
            )

    def _swap(self, checkpoint: Checkpoint, tied: bool) -> None:
        with private_folder(self._scratch, "vllm-") as folder:
            source = checkpoint.folder.resolve()
            if tied and not self._tied:
                source = _with_head(checkpoint, folder)
            self._lm.model.collective_rpc("reload_weights", kwargs={"weights_path": str(source)})
        self._lm.model.reset_prefix_cache()
        if not self._has_weights_of(checkpoint):
            self.close()
            raise Refusal(
                f"{checkpoint.folder}: vllm did not take over all of its weights; score it by the "
                "prefix backend"
            )

    def _has_weights_of(self, checkpoint: Checkpoint) -> bool:
        dtype = self._lm.model.llm_engine.model_config.dtype
        (found,) = self._lm.model.collective_rpc("wildmerge_weight_sums")
        return same_sums(found, checkpoint_sums(checkpoint, dtype))


def _layout(checkpoint: Checkpoint) -> Any:
    """Return all that two models must share to be swapped in one engine, apart from being tied."""
    config = {k: v for k, v in checkpoint.config.items() if k not in ABOUT_FILES}
    config.pop("tie_word_embeddings", None)
    shapes = {name: info.shape for name, info in checkpoint.tensors.items() if name != HEAD}
    files = sorted(checkpoint.folder.glob("tokenizer*")) + sorted(checkpoint.folder.glob("*.jinja"))
    texts = [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files]
    return json.dumps(config, sort_keys=True), shapes, texts


def _with_head(checkpoint: Checkpoint, folder: Path) -> Path:
    """Fill a folder with a tied model and its head as a tensor, for an engine that is not tied."""
    from safetensors.torch import save_file

    weights = [checkpoint.folder / name for name in weights_of(checkpoint.folder).files]
    rest = [path for path in checkpoint.folder.iterdir() if "safetensors" not in path.name]
    for path in (*weights, *rest):  # no index, so all weight files are read
        (folder / path.name).symlink_to(path.resolve())
    save_file({HEAD: checkpoint[EMBEDDING].contiguous()}, folder / "head.safetensors")
    return folder


def _visible(index: int) -> str:
    """Return what CUDA_VISIBLE_DEVICES must be for an engine on the device of this index."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[index] if visible else str(index)
