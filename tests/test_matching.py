"""Which tensor of an expert stands for which of its base, and what each is for."""

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from wild import (
    EMBEDDING,
    HEAD,
    LAYER,
    changed,
    mean_of,
    merged,
    refusal,
    tokens_of,
    weights,
    with_tokens,
)
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.checkpoints.roles import embedding_of, head_of, roles_of

# --- names ----------------------------------------------------------------------------------------

WRAPPERS = {
    "data parallel": lambda name: f"module.{name}",
    "compiled": lambda name: f"_orig_mod.{name}",
    "PEFT": lambda name: f"base_model.model.{name}",
    "multimodal": lambda name: f"language_model.{name}",
    "multimodal of transformers 5": lambda name: name.replace("model.", "model.language_model."),
    "FSDP": lambda name: name.replace(".0.", ".0._fsdp_wrapped_module."),
    "the inner model": lambda name: name.removeprefix("model."),
}


def renamed(source, folder, rename):
    def change(tensors):
        for name in list(tensors):
            tensors[rename(name)] = tensors.pop(name)

    return changed(source, folder, change)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("side", ["base", "expert"])
def test_prefixes_of_known_wrappers_do_not_matter(side, wrapper, tiny_qwen3, tmp_path):
    rename = WRAPPERS[wrapper]
    folders = {"base": tiny_qwen3.base, "expert": tiny_qwen3.experts[0]}
    folders[side] = renamed(folders[side], tmp_path / "renamed", rename)
    recipe = mean_of(tiny_qwen3, folders["expert"], base=str(folders["base"]))
    ours, report = merged(recipe, tmp_path / "out")
    plain, _ = merged(mean_of(tiny_qwen3, tiny_qwen3.experts[0]), tmp_path / "plain")
    given = rename if side == "base" else str
    assert ours.keys() == {given(name) for name in plain}
    assert all(torch.equal(ours[given(name)], plain[name]) for name in plain)
    assert report["warnings"] == []


def test_an_unknown_prefix_is_named(tiny_qwen3, tmp_path):
    other = renamed(tiny_qwen3.experts[0], tmp_path / "other", lambda name: f"student.{name}")
    message = refusal(mean_of(tiny_qwen3, other), tmp_path / "out")
    assert "have the prefix 'student.model.layers' where the base's have 'model.layers'" in message
    assert "not an expert" not in message


def test_a_missing_tensor_is_named(tiny, tmp_path):
    less = changed(tiny.experts[0], tmp_path / "less", lambda tensors: tensors.pop(LAYER))
    assert f"tensor {LAYER} of the base is missing" in refusal(
        mean_of(tiny, less), tmp_path / "out"
    )


# --- roles ----------------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 99,  # as many rows as tokens, and yet no embedding of tokens
}


class Model:
    """A model's headers, as it would be saved, without its weights."""

    def __init__(self, model_type):
        config = CONFIG_MAPPING[model_type](**SMALL)
        with torch.device("meta"):
            self.model = AutoModelForCausalLM.from_config(config)
        self.config = config.to_dict()
        self.tensors = {
            name: TensorInfo("F32", tuple(tensor.shape))
            for name, tensor in self.model.state_dict(keep_vars=True).items()
            if not self.model.config.tie_word_embeddings
            or tensor is not self.model.get_output_embeddings().weight
            or tensor is not self.model.get_input_embeddings().weight
            or name == self.name_of(self.model.get_input_embeddings())
        }

    def name_of(self, module):
        return next(f"{name}.weight" for name, m in self.model.named_modules() if m is module)


@pytest.mark.parametrize(
    "model_type",
    ["gpt2", "mamba", "rwkv", "bloom", "opt", "gpt_neox", "gptj", "phi", "mpt", "gemma", "olmo2"],
)
def test_embedding_and_head_are_those_of_the_architecture(model_type):
    found = Model(model_type)
    roles = roles_of(found)
    assert embedding_of(found) == found.name_of(found.model.get_input_embeddings())
    head = found.name_of(found.model.get_output_embeddings())
    assert head_of(found) == (head if head in found.tensors else None)
    bias = head.replace("weight", "bias")
    assert roles.get(bias, "head") == "head"
    by_token = {name for name, role in roles.items() if role in ("embedding", "head")}
    assert by_token <= {embedding_of(found), head, bias}


def as_internlm(name):
    return {EMBEDDING: "model.tok_embeddings.weight", HEAD: "output.weight"}.get(name, name)


def test_an_unknown_embedding_gets_the_mean_and_is_matched_by_token(tiny_qwen3, tmp_path):
    """Iso-C flattens matrices, but not those that hold a row for every token."""
    base, one = (
        renamed(folder, tmp_path / folder.name, as_internlm)
        for folder in (tiny_qwen3.base, tiny_qwen3.experts[0])
    )
    tokens = sorted(tokens_of(base), reverse=True)
    moved = with_tokens(tiny_qwen3.experts[1], tmp_path / "moved", ["<new>", *tokens])
    other = renamed(moved, tmp_path / "other", as_internlm)
    ours, _ = merged(
        mean_of(tiny_qwen3, one, other, base=str(base), method="iso_c"), tmp_path / "o"
    )
    for name in (EMBEDDING, HEAD):
        mean = sum(weights(folder)[name] for folder in tiny_qwen3.experts[:2]) / 2
        torch.testing.assert_close(ours[as_internlm(name)][:31], mean[:31], rtol=0, atol=1e-6)


def test_the_bias_of_a_head_follows_the_vocabulary(tiny_qwen3, tmp_path):
    def give_bias(tensors):
        tensors["lm_head.bias"] = torch.arange(32.0)

    base, expert = (
        changed(folder, tmp_path / folder.name, give_bias)
        for folder in (tiny_qwen3.base, tiny_qwen3.experts[0])
    )
    tokens = sorted(tokens_of(base), reverse=True)
    moved = with_tokens(expert, tmp_path / "moved", tokens)
    ours, _ = merged(mean_of(tiny_qwen3, moved, base=str(base)), tmp_path / "out")
    rows = sorted(tokens_of(base).values())
    assert torch.equal(ours["lm_head.bias"][rows], torch.arange(32.0)[rows])


# --- buffers --------------------------------------------------------------------------------------

MASK = torch.tril(torch.ones(1, 1, 16, 16))
BUFFERS = {
    "another dtype": ("attn.bias", MASK, MASK.bool()),
    "another length": ("attn.bias", MASK, torch.ones(1, 1, 32, 32)),
    "another context": ("self_attn.rotary_emb.cos_cached", torch.ones(16, 8), torch.ones(64, 8)),
    "minus infinity": ("attn.masked_bias", torch.tensor(-torch.inf), torch.tensor(-torch.inf)),
}


@pytest.mark.parametrize("difference", BUFFERS)
def test_buffers_are_the_bases_whatever_an_expert_has(difference, tiny, tmp_path):
    name, ours, theirs = BUFFERS[difference]
    name = f"model.layers.0.{name}"
    base = changed(tiny.base, tmp_path / "base", lambda t: t.update({name: ours}))
    expert = changed(tiny.experts[0], tmp_path / "expert", lambda t: t.update({name: theirs}))
    result, report = merged(mean_of(tiny, expert, base=str(base)), tmp_path / "out")
    plain, _ = merged(mean_of(tiny, tiny.experts[0]), tmp_path / "plain")
    assert torch.equal(result.pop(name), ours)
    assert all(torch.equal(result[key], plain[key]) for key in {*result, *plain})
    assert report["alignment"] == {}
