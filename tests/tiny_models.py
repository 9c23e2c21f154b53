"""Tiny random models of real architectures, saved the way the ecosystem saves them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

SHAPE = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
}


@dataclass
class Family:
    """Folders of a base and its experts."""

    base: Path
    experts: list[Path]


def make_family(folder: Path, architecture: str, experts: int = 3) -> Family:
    """Save a random base and experts that moved a little from it."""
    torch.manual_seed(0)
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)).bfloat16()
    else:
        model = Qwen3ForCausalLM(Qwen3Config(**SHAPE, tie_word_embeddings=False))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    save_with_tokenizer(model, folder / "base")
    for index in range(experts):
        generator = torch.Generator().manual_seed(index + 1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                step = 0.05 * torch.randn(p.shape, generator=generator)
                p.copy_((start[name].float() + step).to(p.dtype))
        save_with_tokenizer(model, folder / f"expert{index}")
    return Family(folder / "base", [folder / f"expert{i}" for i in range(experts)])


def save_with_tokenizer(model, folder: Path) -> None:
    """Save a model with a tokenizer of one token a character."""
    model.generation_config = GenerationConfig(max_new_tokens=4, do_sample=False)
    model.save_pretrained(folder)
    characters = "abcdefghijklmnopqrstuvwxyz .?"
    vocabulary = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
