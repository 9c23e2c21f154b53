"""How many tokens a pass may hold.

Everything a pass allocates grows with its tokens or with the longest request, so a budget in bytes
gives a largest pass. The budget is a constant: how requests are packed decides how sums are rounded,
and what happens to be free on a machine must not. The constants of `pass_bytes` are bounds counted
from the tensors that live at the same time in a pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from wildmerge.errors import Refusal
from wildmerge.scoring.memory import available_bytes
from wildmerge.scoring.prefix.request_tree import PassCosts
from wildmerge.scoring.prefix.tree_attention import LOGIT_ROWS

# Bytes for the tokens of a pass, beside what one token on the longest request needs.
BUDGET = {"cpu": 512 * 2**20, "other": 4 * 2**30}
PASS_LIMIT = 4  # no pass is longer than this many times the fastest length

# A pass's fixed cost in tokens, and how much slower attention's arithmetic is than matrix
# products'. Measured with SmolLM2-135M on one CPU core; on a GPU estimated from bandwidth and
# launch times.
PER_PASS = {"cpu": 32.0, "other": 256.0}
ATTENTION_SLOWDOWN = {"cpu": 2.0, "other": 4.0}


@dataclass(frozen=True)
class Sizes:
    """A model's sizes by what they are for, whatever its configuration calls them.

    Attributes:
        layers: transformer layers.
        heads, key_heads: attention heads, and those of keys and values.
        head: width of one head.
        hidden: width of the residual stream.
        widest: largest width in a layer, of all experts that a token visits.
        vocabulary: rows of the output head.
        matrices: weights outside of embedding and head.
    """

    layers: int
    heads: int
    key_heads: int
    head: int
    hidden: int
    widest: int
    vocabulary: int
    matrices: int


def sizes_of(model: PreTrainedModel) -> Sizes:
    """Return a model's sizes, from its configuration and, where names differ, its weights."""
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    inside = [p for p in model.parameters() if p.ndim > 1 and config.vocab_size not in p.shape]
    widest = max((size for p in inside for size in p.shape[-2:]), default=config.hidden_size)
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]
    embedded = {p.data_ptr(): p.numel() for end in ends if end for p in end.parameters()}
    return Sizes(
        layers=config.num_hidden_layers,
        heads=heads,
        key_heads=getattr(config, "num_key_value_heads", None) or heads,
        head=getattr(config, "head_dim", None) or config.hidden_size // heads,
        hidden=config.hidden_size,
        widest=widest * (getattr(config, "num_experts_per_tok", None) or 1),
        vocabulary=config.vocab_size,
        matrices=max(model.num_parameters() - sum(embedded.values()), 1),
    )


def pass_bytes(sizes: Sizes, item: int, longest: int, tokens: int) -> int:
    """Bound the bytes that a pass needs beside the weights.

    Args:
        sizes: The model's.
        item: Bytes of a number in the model's dtype.
        longest: Tokens of the longest request: the deepest prefix a pass can build on.
        tokens: Tokens of the pass.

    Returns:
        Bytes of the cache of all layers and of the activations of one.
    """
    keys = longest + tokens
    width = sizes.heads * sizes.head
    cache = 2 * sizes.layers * sizes.key_heads * sizes.head * keys * item
    repeated = 2 * width * keys * item  # keys and values, one copy for each query head
    hidden = tokens * (6 * sizes.hidden + 4 * width) * max(item, 4)
    mlp = tokens * 3 * sizes.widest * item
    mask = tokens * keys * (item + 2)
    logits = (tokens * item + 3 * min(LOGIT_ROWS, tokens) * 4) * sizes.vocabulary
    return cache + repeated + hidden + max(mlp, logits) + mask


def pass_costs(model: PreTrainedModel, longest: int, budget: int | None = None) -> PassCosts:
    """Return what passes cost on the model's device and the most tokens one may have.

    Args:
        model: The model, on its device.
        longest: Tokens of the longest request.
        budget: Bytes for the tokens of a pass; None takes the constant of the kind of device.

    Raises:
        Refusal: The largest pass does not fit into what is free.
    """
    kind = "cpu" if model.device.type == "cpu" else "other"
    sizes, item = sizes_of(model), model.dtype.itemsize
    pair = 2 * sizes.layers * sizes.heads * sizes.head / sizes.matrices * ATTENTION_SLOWDOWN[kind]
    costs = PassCosts(PER_PASS[kind], pair, 2**30)
    most = pass_bytes(sizes, item, longest, 1) + (BUDGET[kind] if budget is None else budget)
    limit = 1
    while 2 * limit <= PASS_LIMIT * costs.best_tokens:
        if pass_bytes(sizes, item, longest, 2 * limit) > most:
            break
        limit *= 2
    needed, free = pass_bytes(sizes, item, longest, limit), _free_bytes(model.device)
    if needed > free:
        raise Refusal(
            f"a request of {longest} tokens needs up to {needed / 2**20:,.0f} MiB beside the model, "
            f"and {free / 2**20:,.0f} MiB are free; use a device with more memory"
        )
    return PassCosts(costs.per_pass, costs.per_pair, limit)


def _free_bytes(device: torch.device) -> int:
    """Return the bytes that tensors may still take on a device."""
    if device.type == "cpu":
        return available_bytes()
    if device.type != "cuda":
        return 2**62  # not known
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
