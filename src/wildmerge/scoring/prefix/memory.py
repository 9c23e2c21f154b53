"""How much memory scoring may use, and how many tokens a pass may hold within it.

Everything a pass allocates grows with its tokens or with the longest request, so a budget in bytes
gives a largest pass. The constants are bounds counted from the tensors that live at the same time
in a pass.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from wildmerge.errors import Refusal
from wildmerge.scoring.memory import available_bytes
from wildmerge.scoring.prefix.request_tree import PassCosts
from wildmerge.scoring.prefix.tree_attention import LOGIT_ROWS

DEVICE_SHARE = 0.8  # of the accelerator's free memory
HOST_SHARE = 0.25  # of the host's free memory, which others use too
PASS_LIMIT = 4  # no pass is longer than this many times the fastest length

# A pass's fixed cost in tokens, and how much slower attention's arithmetic is than matrix
# products'. Measured with SmolLM2-135M on one CPU core; on a GPU estimated from bandwidth and
# launch times.
PER_PASS = {"cpu": 32.0, "other": 256.0}
ATTENTION_SLOWDOWN = {"cpu": 2.0, "other": 4.0}


def default_budget(device: torch.device) -> int:
    """Return the bytes that scoring may use beside the model's weights, found from what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(DEVICE_SHARE * (free + unused))
    return int(HOST_SHARE * available_bytes())


def pass_bytes(model: PreTrainedModel, longest: int, tokens: int) -> int:
    """Bound the bytes that a pass needs beside the weights.

    Args:
        model: The model, whose configuration gives all sizes.
        longest: Tokens of the longest request: the deepest prefix a pass can build on.
        tokens: Tokens of the pass.

    Returns:
        Bytes of the cache of all layers and of the activations of one.
    """
    config = model.config.get_text_config()
    item = model.dtype.itemsize
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    keys = longest + tokens
    cache = 2 * config.num_hidden_layers * key_heads * size * keys * item
    repeated = 2 * heads * size * keys * item  # keys and values, one copy for each query head
    hidden = tokens * (6 * config.hidden_size + 4 * heads * size) * max(item, 4)
    experts = getattr(config, "num_experts_per_tok", None) or 1
    mlp = tokens * 3 * config.intermediate_size * experts * item
    mask = tokens * keys * (item + 2)
    logits = (tokens * item + 3 * min(LOGIT_ROWS, tokens) * 4) * config.vocab_size
    return int(cache + repeated + hidden + max(mlp, logits) + mask)


def pass_costs(model: PreTrainedModel, longest: int, budget: int) -> PassCosts:
    """Return what passes cost on the model's device and the most tokens one may have.

    The limit is a power of two, so that small changes in free memory lead to the same plan.

    Args:
        model: The model, on its device.
        longest: Tokens of the longest request.
        budget: Bytes that scoring may use beside the weights.

    Raises:
        Refusal: Not even a pass of one token on the longest request fits.
    """
    if (least := pass_bytes(model, longest, 1)) > budget:
        raise Refusal(
            f"memory budget of {budget / 2**20:.0f} MiB: a request of {longest} tokens needs "
            f"{least / 2**20:.0f} MiB; use a device with more memory"
        )
    device = "cpu" if model.device.type == "cpu" else "other"
    config = model.config.get_text_config()
    heads = config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    embedding = config.vocab_size * config.hidden_size
    matrices = max(model.num_parameters() - embedding * (2 - config.tie_word_embeddings), 1)
    pair = 2 * config.num_hidden_layers * heads * size / matrices * ATTENTION_SLOWDOWN[device]
    costs = PassCosts(PER_PASS[device], pair, 2**30)
    limit = 1
    while 2 * limit <= PASS_LIMIT * costs.best_tokens:
        if pass_bytes(model, longest, 2 * limit) > budget:
            break
        limit *= 2
    return PassCosts(costs.per_pass, costs.per_pair, limit)
