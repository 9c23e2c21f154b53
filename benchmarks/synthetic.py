"""Synthetic checkpoints of real shapes for benchmarks: a random base, experts a small step away."""

from __future__ import annotations

import json
import math
from pathlib import Path

HIDDEN, MIDDLE, QUERY, KEY, VOCABULARY = 1024, 3072, 2048, 1024, 32000
STEP = 5e-4  # standard deviation of a task vector; the weights' is 0.02


CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": HIDDEN,
    "intermediate_size": MIDDLE,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
    "dtype": "bfloat16",
    "torch_dtype": "bfloat16",
}
EMBEDDING = {"model.embed_tokens.weight": (128256, 4096)}
"""The largest tensor of Llama 3.1 8B."""


def make_models(folder: Path, names: dict[str, tuple[int, ...]], experts: int) -> Path:
    """Make a random base and experts a small random step away from it, those that are missing.

    Args:
        folder: where they are kept, as `base`, `expert0`, ...
        names: shape of each tensor.
        experts: how many.
    """
    import torch
    from safetensors.torch import save_file

    noise = torch.randn(1 << 24, generator=torch.Generator().manual_seed(0))

    def random(shape: tuple[int, ...], seed: int) -> torch.Tensor:
        """Normal numbers: a window of one long row, which is much faster than to draw them anew."""
        numel = math.prod(shape)
        start = seed * 7_368_787 % len(noise)
        return noise.repeat(-(-(start + numel) // len(noise)))[start : start + numel].view(shape)

    def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
        partial = folder / f"{name}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        layers = {name.split(".")[2] for name in names if name.startswith("model.layers.")}
        config = CONFIG | {"num_hidden_layers": len(layers)}
        (partial / "config.json").write_text(json.dumps(config))
        partial.rename(folder / name)

    base = {
        name: (0.02 * random(shape, i) + (len(shape) == 1)).bfloat16()
        for i, (name, shape) in enumerate(names.items())
    }
    if not (folder / "base").exists():
        save("base", base)
    for expert in range(experts):
        if not (folder / f"expert{expert}").exists():
            seeds = {name: 1000 * (expert + 1) + i for i, name in enumerate(names)}
            steps = {name: STEP * random(shape, seeds[name]) for name, shape in names.items()}
            save(f"expert{expert}", {n: (base[n].float() + s).bfloat16() for n, s in steps.items()})
    return folder


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes of Qwen3-0.6B with a smaller vocabulary."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    block = {
        "input_layernorm": (HIDDEN,),
        "self_attn.q_proj": (QUERY, HIDDEN),
        "self_attn.k_proj": (KEY, HIDDEN),
        "self_attn.v_proj": (KEY, HIDDEN),
        "self_attn.o_proj": (HIDDEN, QUERY),
        "self_attn.q_norm": (128,),
        "self_attn.k_norm": (128,),
        "post_attention_layernorm": (HIDDEN,),
        "mlp.gate_proj": (MIDDLE, HIDDEN),
        "mlp.up_proj": (MIDDLE, HIDDEN),
        "mlp.down_proj": (HIDDEN, MIDDLE),
    }
    for layer in range(layers):
        found |= {f"model.layers.{layer}.{part}.weight": s for part, s in block.items()}
    return found | {"model.norm.weight": (HIDDEN,)}
