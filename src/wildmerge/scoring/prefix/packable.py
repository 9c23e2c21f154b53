"""Which models may be scored through a prefix tree, and why the others may not.

Packing is exact only if a token depends on its ancestors and their distances alone, through
attention that takes a mask and positions from outside. The configuration shows where this fails by
design; a small tree, scored both ways on the model itself, shows the rest.
"""

from __future__ import annotations

import inspect

import numpy as np
import torch
from transformers import PreTrainedModel

from wildmerge.scoring.prefix.request_tree import PassCosts, plan_passes
from wildmerge.scoring.prefix.requests import TokenRequests
from wildmerge.scoring.prefix.tree_attention import read_logprobs, run_plan

# Their rotary frequencies depend on the length of the whole batch.
LENGTH_DEPENDENT_ROPE = {"dynamic", "longrope"}
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}
HALF_TOLERANCE = 0.5  # rounding of half precision; a wrong mask or position is off by much more


def why_not_packable(model: PreTrainedModel) -> str | None:
    """Return None if `model` may be scored through a prefix tree, else a few words why not."""
    return _against_by_design(model) or _against_by_trial(model)


def _against_by_design(model: PreTrainedModel) -> str | None:
    config = model.config.get_text_config()
    layers = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    rope = getattr(config, "rope_parameters", None) or {}
    accepted = inspect.signature(model.forward).parameters
    attention = config._attn_implementation
    other = ", ".join(sorted(layers - {"full_attention"})).replace("_", " ")
    slides = window is not None and getattr(config, "use_sliding_window", True)
    missing = {"position_ids", "past_key_values", "logits_to_keep"} - accepted.keys()
    objections = {
        "it is an encoder-decoder model": model.config.is_encoder_decoder,
        "it has recurrent layers": getattr(model, "_is_stateful", False),
        f"it has {other} layers": other,
        f"its attention slides over a window of {window} tokens": slides,
        "its position encoding depends on the batch": rope.get("rope_type")
        in LENGTH_DEPENDENT_ROPE,
        f"its {attention} attention takes no tree mask": attention not in ("sdpa", "eager"),
        f"its forward pass takes no {', '.join(sorted(missing))}": missing,
    }
    return next((reason for reason, holds in objections.items() if holds), None)


@torch.inference_mode()
def _against_by_trial(model: PreTrainedModel) -> str | None:
    """Score a small tree both ways on the model itself."""
    token = np.random.default_rng(0).integers(0, model.config.get_text_config().vocab_size, 20)
    stem, left, right = token[:9].tolist(), token[9:14].tolist(), token[14:].tolist()
    pairs = [(stem, left), (stem, right), (stem, left[:2]), (stem[:4], right)]
    requests = TokenRequests.from_pairs(pairs)
    try:
        # Passes of few tokens, so that the trial has a cached prefix and a pack.
        plan = plan_passes(requests, 64, PassCosts(per_pass=1, per_pair=0.1, max_tokens=12))
        packed = [score for score, _ in run_plan(model, plan)]
    except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        return f"its code does not accept a tree of tokens ({type(error).__name__})"
    plain = [_plain_score(model, *pair) for pair in pairs]
    worst = max(abs(a - b) for a, b in zip(packed, plain, strict=True))
    if not worst <= TOLERANCE.get(model.dtype, HALF_TOLERANCE):
        return f"a trial differed from plain scoring by {worst:.2g}"
    return None


def _plain_score(model: PreTrainedModel, context: list[int], continuation: list[int]) -> float:
    """Score one request in a forward pass of its own."""
    tokens = torch.tensor([context + continuation], device=model.device)
    logits = model(tokens[:, :-1], use_cache=False).logits[0, -len(continuation) :]
    rows = torch.arange(len(continuation), device=model.device)
    return float(read_logprobs(logits, rows, tokens[0, -len(continuation) :])[0].sum())
