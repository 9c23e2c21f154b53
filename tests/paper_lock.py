"""A lock of the paper's study as the hub would give it.

Repositories are the study's, definitions of benchmarks lm-eval's and shapes those of the four bases;
commits, files and their digests are made up.
"""

import hashlib
from typing import Any

from wildmerge.planning.lock import Lock, lock_tasks
from wildmerge.study.file import Study

SHAPES = {  # config.json of each base, as far as shapes follow from it
    "meta-llama/Llama-3.2-3B-Instruct": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 28,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-4B": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen3-8B": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": False,
    },
}
PARAMETERS = {  # as the models' cards state them
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
}


def make_paper_lock(study: Study) -> Lock:
    """Return a lock of a study on these four bases, every expert with its base's shapes."""
    checkpoints = {}
    for base in study.bases.values():
        for repo in (base.checkpoint, *base.experts.values()):
            checkpoints[repo] = entry(repo, SHAPES[base.checkpoint])
    tasks = lock_tasks(study, lambda *source: hashlib.sha1(repr(source).encode()).hexdigest())
    return Lock(checkpoints, tasks)


def entry(repo: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return one repository's entry."""
    commit = hashlib.sha1(repo.encode()).hexdigest()
    shapes = tensors(config)
    size = sum(2 * _numel(shape) for _, shape in shapes.values())
    shards = -(-size // 5_000_000_000)
    files = {
        f"model-{i + 1:05}-of-{shards:05}.safetensors": {
            "size": size // shards,
            "sha256": hashlib.sha256(f"{repo}{i}".encode()).hexdigest(),
        }
        for i in range(shards)
    }
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        digest = hashlib.sha256(f"{repo}{name}".encode()).hexdigest()
        files[name] = {"size": 10_000_000 if name == "tokenizer.json" else 2000, "sha256": digest}
    return {
        "repo": repo,
        "commit": commit,
        "files": files,
        "config": config,
        "tensors": shapes,
        "identity": f"{repo}@{commit}",
    }


def tensors(config: dict[str, Any]) -> dict[str, list[Any]]:
    """Return name -> [dtype, shape] of a Llama or Qwen3 checkpoint in bfloat16."""
    hidden, middle, head = (config[key] for key in ("hidden_size", "intermediate_size", "head_dim"))
    query, key = (head * config[f"num_{kind}_heads"] for kind in ("attention", "key_value"))
    block = {
        "input_layernorm": [hidden],
        "self_attn.q_proj": [query, hidden],
        "self_attn.k_proj": [key, hidden],
        "self_attn.v_proj": [key, hidden],
        "self_attn.o_proj": [hidden, query],
        "post_attention_layernorm": [hidden],
        "mlp.gate_proj": [middle, hidden],
        "mlp.up_proj": [middle, hidden],
        "mlp.down_proj": [hidden, middle],
    }
    if config["model_type"] == "qwen3":
        block |= {"self_attn.q_norm": [head], "self_attn.k_norm": [head]}
    vocabulary = [config["vocab_size"], hidden]
    found = {"model.embed_tokens.weight": vocabulary, "model.norm.weight": [hidden]}
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = vocabulary
    for layer in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{layer}.{part}.weight": shape for part, shape in block.items()}
    return {name: ["BF16", shape] for name, shape in found.items()}


def _numel(shape: list[int]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count
