"""Adapters that train embedding or head, with tokens added or not: the weights with which they run."""

import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from test_adapters import ATTENTION, PLAIN
from tiny_models import SHAPE
from wild import EMBEDDING, HEAD, mean_of, merged, name_tokens, tokens_of
from wildmerge.checkpoints.heads import is_tied
from wildmerge.checkpoints.opening import open_checkpoint

NEW_TOKENS = {
    "saved": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embedding saved": {"modules_to_save": ["embed_tokens"]},
    "LoRA": {"target_modules": [*ATTENTION, "embed_tokens", "lm_head"]},
    "LoRA on the embedding": {"target_modules": [*ATTENTION, "embed_tokens"]},
    "LoRA on the head": {"target_modules": [*ATTENTION, "lm_head"]},
    "trained as one": {"target_modules": [*ATTENTION, "embed_tokens"], "ensure_weight_tying": True},
    "resized only": {},
}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("added", [0, 2])
@pytest.mark.parametrize("kind", NEW_TOKENS)
def test_embedding_and_head_are_those_with_which_the_adapter_runs(kind, added, tied, tmp_path):
    """Against PEFT's own forward pass: what is trained of one of two tied weights is not the other's."""
    torch.manual_seed(0)
    base = tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=tied)).save_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if added:
        model.resize_token_embeddings(32 + added)
    settings = PLAIN | NEW_TOKENS[kind]
    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **settings))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "lora")
    found = open_checkpoint(tmp_path / "lora", open_checkpoint(base))
    embedding = as_it_runs(adapted.get_input_embeddings())
    head = as_it_runs(adapted.get_output_embeddings())
    of_head = EMBEDDING if is_tied(found) else HEAD
    # of two weights of which one has LoRA, PEFT does not save the other, resized as it may be
    torch.testing.assert_close(found[EMBEDDING], embedding[: len(found[EMBEDDING])])
    torch.testing.assert_close(found[of_head], head[: len(found[of_head])])
    if added and (tied or "on the" not in kind and kind != "trained as one"):
        assert len(found[EMBEDDING]) == len(found[of_head]) == 34


def as_it_runs(layer):
    if hasattr(layer, "get_delta_weight"):
        return layer.base_layer.weight.detach() + layer.get_delta_weight("default").detach()
    saved = getattr(layer, "modules_to_save", None)
    return (saved["default"] if saved else layer).weight.detach()


def test_new_tokens_are_matched_by_the_adapters_own_tokenizer(tiny_qwen3, tmp_path):
    """The usual chat fine-tune: two tokens more, embedding and head saved whole."""
    model = AutoModelForCausalLM.from_pretrained(tiny_qwen3.base)
    model.resize_token_embeddings(34)
    settings = PLAIN | {"modules_to_save": ["embed_tokens", "lm_head"]}
    adapted = get_peft_model(model, LoraConfig(init_lora_weights=False, **settings))
    adapted.save_pretrained(tmp_path / "lora")
    shutil.copy(tiny_qwen3.base / "tokenizer.json", tmp_path / "lora")
    known = tokens_of(tiny_qwen3.base)
    name_tokens(tmp_path / "lora", {"<|im_start|>": 33} | {t: 31 - row for t, row in known.items()})
    ours, report = merged(mean_of(tiny_qwen3, tmp_path / "lora"), tmp_path / "out")
    rows = sorted(known.values())
    for name in (EMBEDDING, HEAD):
        trained = load_file(tmp_path / "lora/adapter_model.safetensors")[f"base_model.model.{name}"]
        torch.testing.assert_close(ours[name][rows], trained[[31 - row for row in rows]])
    assert any("rows are dropped" in line for line in report["warnings"])
