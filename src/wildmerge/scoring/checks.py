"""Model folders that would be scored as something else than they are, refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.checkpoints.chat import has_chat_template
from wildmerge.checkpoints.opening import open_weights
from wildmerge.checkpoints.roles import role_of
from wildmerge.errors import Refusal

if TYPE_CHECKING:
    import torch


def check_tokenizer(folder: Path, *, chat_template: bool) -> None:
    """Refuse a model folder without tokenizer or, where one is needed, without chat template."""
    if not any(folder.glob("tokenizer*")):
        raise Refusal(f"{folder}: no tokenizer files; copy those of the base into it")
    if chat_template and not has_chat_template(folder):
        raise Refusal(
            f"{folder}: its tokenizer has no chat template; score without one (chat_template: false), "
            "or put one into chat_template.jinja"
        )


def require_whole(folder: Path, name: str) -> None:
    """Refuse a model that lacks tensors, which transformers would fill at random, or has others.

    Args:
        folder: the model.
        name: what messages call it.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    try:
        encodes = AutoConfig.from_pretrained(folder, trust_remote_code=False).is_encoder_decoder
        kind: Any = AutoModelForSeq2SeqLM if encodes else AutoModelForCausalLM
        _, found = kind.from_pretrained(
            folder,
            device_map="meta",  # reads names and shapes
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:300].replace(str(folder), name)
        raise Refusal(f"{name}: transformers cannot load it ({reason})") from error
    stored = open_weights(folder).tensors
    unexpected = {
        tensor
        for tensor in found["unexpected_keys"]
        if role_of(tensor, stored[tensor].shape if tensor in stored else ()) != "buffer"
    }
    for what, tensors in (
        ("lacks", found["missing_keys"]),
        ("has another shape of", {tensor for tensor, *_ in found["mismatched_keys"]}),
        ("has, and its architecture does not know,", unexpected),
    ):
        if tensors:
            more = f" and {len(tensors) - 1} more" if len(tensors) > 1 else ""
            raise Refusal(f"{name}: {what} {min(tensors)}{more}; save the model again")


def require_finite(model: torch.nn.Module, name: str) -> None:
    """Refuse a model whose weights hold NaN or infinities as they are scored."""
    import torch

    for tensor, weights in model.named_parameters():
        if weights.numel() and not torch.stack(torch.aminmax(weights.detach())).isfinite().all():
            dtype = str(weights.dtype).removeprefix("torch.")
            raise Refusal(
                f"{name}: {tensor} holds NaN or infinite values in {dtype}; the checkpoint is broken, "
                "or its weights are too large for this dtype"
            )
