"""A LoRA adapter is the expert that PEFT would make of it; other adapters are refused by name."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from wild import mean_of, merged
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe

ATTENTION = ["q_proj", "v_proj"]
PLAIN = {"r": 4, "lora_alpha": 12, "target_modules": ATTENTION}
KINDS = {
    "plain": PLAIN,
    "rslora": PLAIN | {"use_rslora": True},
    "patterns": PLAIN
    | {
        "target_modules": "all-linear",
        "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 3},
        "alpha_pattern": {"q_proj": 5, "layers.0.mlp.up_proj": 1},
    },
    "modules to save": PLAIN | {"modules_to_save": ["lm_head", "norm"]},
    "embedding": PLAIN | {"target_modules": [*ATTENTION, "embed_tokens", "lm_head"]},
}


def make_adapter(base, folder, safe=True, **settings):
    """Train nothing, but fill an adapter with random factors; return PEFT's merged weights."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    adapted = get_peft_model(model, config)
    with torch.no_grad():  # what modules_to_save and bias trained
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.add_(0.05 * torch.randn_like(parameter))
    adapted.save_pretrained(folder, safe_serialization=safe)
    fresh = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(fresh, folder).merge_and_unload()
    return {name: tensor.detach() for name, tensor in merged.state_dict().items()}


def assert_equals(folder, base, expected):
    base = open_checkpoint(base)
    checkpoint = open_checkpoint(folder, base)
    moved = 0
    for name in checkpoint.tensors:
        ours = checkpoint[name].float()
        rounding = 5e-7 * float(expected[name].abs().max())  # a few units of float32
        assert torch.allclose(ours, expected[name], rtol=0, atol=rounding), name
        moved += not torch.equal(ours, base[name].float())
    assert moved


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_equals_pefts_merge(kind, tiny_qwen3, tmp_path):
    expected = make_adapter(tiny_qwen3.base, tmp_path / "lora", **KINDS[kind])
    assert_equals(tmp_path / "lora", tiny_qwen3.base, expected)


def test_an_adapter_saved_as_bin(tiny_qwen3, tmp_path):
    expected = make_adapter(tiny_qwen3.base, tmp_path / "lora", safe=False, **PLAIN)
    assert_equals(tmp_path / "lora", tiny_qwen3.base, expected)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A tiny GPT-2: its linear layers store their weights transposed and have biases."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("gpt2")
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=24, n_layer=2, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("bias", ["none", "all"])
def test_fan_in_fan_out_and_biases(gpt2, bias, tmp_path):
    targets = {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}
    expected = make_adapter(gpt2, tmp_path / "lora", r=3, lora_alpha=6, bias=bias, **targets)
    assert_equals(tmp_path / "lora", gpt2, expected)


CONV1D = (["attn.c_proj", "lm_head"], ["c_attn", "c_fc", "lm_head"], ["mlp.c_proj", "attn.c_proj"])


@pytest.mark.parametrize("targets", CONV1D)
@pytest.mark.parametrize("stated", [True, False])
def test_transposed_layers_and_others_in_one_adapter(targets, stated, tmp_path):
    """GPT-2 stores its layers transposed and its head not; PEFT writes one fan_in_fan_out for both."""
    config = GPT2Config(vocab_size=32, n_positions=16, n_embd=24, n_layer=1, n_head=2)
    config.tie_word_embeddings = False
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    settings = {"target_modules": targets, "fan_in_fan_out": True}
    expected = make_adapter(tmp_path / "base", tmp_path / "lora", **settings)
    edit_config(tmp_path / "lora", fan_in_fan_out=stated)
    assert_equals(tmp_path / "lora", tmp_path / "base", expected)


def test_what_stands_beside_an_adapter_does_not_matter(tiny_qwen3, tmp_path):
    expected = make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    save_file({"v_head.weight": torch.ones(1, 32)}, tmp_path / "lora/value_head.safetensors")
    (tmp_path / "lora/optimizer.pt").write_bytes(b"state")
    assert_equals(tmp_path / "lora", tiny_qwen3.base, expected)


def test_an_adapter_in_a_folder_below_is_pointed_to(tiny_qwen3, tmp_path):
    make_adapter(tiny_qwen3.base, tmp_path / "run/math", **PLAIN)
    assert "in its folders math" in refusal(tmp_path / "run", tiny_qwen3.base)


def rename_keys(folder, before, after):
    path = folder / "adapter_model.safetensors"
    tensors = {key.replace(before, after): t for key, t in load_file(path).items()}
    save_file(tensors, path)
    return tensors


def test_names_with_the_adapters_own_name_are_read(tiny_qwen3, tmp_path):
    expected = make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    tensors = rename_keys(tmp_path / "lora", ".weight", ".math.weight")
    assert_equals(tmp_path / "lora", tiny_qwen3.base, expected)
    tensors |= {key.replace("math", "code"): t.clone() for key, t in tensors.items()}
    save_file(tensors, tmp_path / "lora/adapter_model.safetensors")
    assert "holds several adapters" in refusal(tmp_path / "lora", tiny_qwen3.base)


def test_an_adapter_of_a_base_by_another_name_is_remarked(tiny_qwen3, tmp_path):
    make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    edit_config(tmp_path / "lora", base_model_name_or_path="org/other-8B")
    _, report = merged(mean_of(tiny_qwen3, tmp_path / "lora"), tmp_path / "out")
    assert any("names another base, org/other-8B" in remark for remark in report["remarks"])


def test_adapters_merge_with_whole_models(tiny_qwen3, tmp_path):
    """Base and a whole expert in their files, an adapter beside them: the mean of both updates."""
    expected = make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    experts = (str(tmp_path / "lora"), str(tiny_qwen3.experts[0]))
    recipe = Recipe(base=str(tiny_qwen3.base), experts=experts, method="task_arithmetic")
    report = merge(recipe, tmp_path / "merged", progress=False)
    assert report["alignment"] == {experts[0]: {"adapter": 4}}
    assert report["warnings"] == []
    assert report["remarks"] == [f"{experts[0]}: a LoRA adapter of 4 tensors"]
    merged = load_file(tmp_path / "merged/model.safetensors")
    other = load_file(tiny_qwen3.experts[0] / "model.safetensors")
    for name, tensor in merged.items():
        assert torch.allclose(tensor, (expected[name] + other[name]) / 2, atol=1e-6)
    AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def test_an_adapter_of_a_tied_head_makes_a_head(tiny, tmp_path):
    make_adapter(tiny.base, tmp_path / "lora", **PLAIN | {"target_modules": ["lm_head"]})
    recipe = Recipe(base=str(tiny.base), experts=(str(tmp_path / "lora"),), method="ties")
    with pytest.raises(Refusal, match="has an output head of its own"):
        merge(recipe, tmp_path / "merged", progress=False)
    untied = recipe.model_copy(update={"untie": True})
    merge(untied, tmp_path / "merged", progress=False)
    merged = load_file(tmp_path / "merged/model.safetensors")
    base = load_file(tiny.base / "model.safetensors")["model.embed_tokens.weight"]
    factors = load_file(tmp_path / "lora/adapter_model.safetensors")
    a, b = (factors[f"base_model.model.lm_head.lora_{x}.weight"] for x in "AB")
    assert torch.equal(merged["model.embed_tokens.weight"], base)
    assert torch.allclose(merged["lm_head.weight"].float(), base + 3 * b @ a, rtol=2**-8, atol=1e-6)


def test_an_adapter_beside_whole_weights_is_refused(tiny_qwen3, tmp_path):
    """transformers, which scores, would add the adapter to the weights; merging would not."""
    make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    shutil.copy(tiny_qwen3.base / "model.safetensors", tmp_path / "lora")
    assert "whole weights (model.safetensors) and an adapter" in refusal(
        tmp_path / "lora", tiny_qwen3.base
    )


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder, base):
    with pytest.raises(Refusal) as caught:
        open_checkpoint(folder, open_checkpoint(base))
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"use_dora": True}, "a DoRA adapter"),
        ({"peft_type": "IA3"}, "a IA3 adapter"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"r": 5}, "gives model.layers.0.self_attn.q_proj rank 5, its factors have 4"),
        ({"lora_alpha": "much"}, "no usable r and lora_alpha"),
    ],
)
def test_other_adapters_are_refused_by_name(changes, words, tiny_qwen3, tmp_path):
    make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    edit_config(tmp_path / "lora", **changes)
    assert words in refusal(tmp_path / "lora", tiny_qwen3.base)


def test_a_real_dora_is_refused(tiny_qwen3, tmp_path):
    make_adapter(tiny_qwen3.base, tmp_path / "dora", use_dora=True, **PLAIN)
    assert "a DoRA adapter" in refusal(tmp_path / "dora", tiny_qwen3.base)
    edit_config(tmp_path / "dora", use_dora=False)
    assert "lora_magnitude_vector" in refusal(tmp_path / "dora", tiny_qwen3.base)


def test_adapters_of_another_base_are_refused(gpt2, tiny_qwen3, tmp_path):
    make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    assert "which the base does not have" in refusal(tmp_path / "lora", gpt2)
    weights = tmp_path / "lora/adapter_model.safetensors"
    tensors = load_file(weights)
    tensors = {k: t[:, :-1].contiguous() if "lora_A" in k else t for k, t in tensors.items()}
    save_file(tensors, weights)
    assert "do not fit the base's [32, 32]" in refusal(tmp_path / "lora", tiny_qwen3.base)


def test_an_adapter_is_no_base(tiny_qwen3, tmp_path):
    make_adapter(tiny_qwen3.base, tmp_path / "lora", **PLAIN)
    with pytest.raises(Refusal, match="give it as an expert of its base"):
        open_checkpoint(tmp_path / "lora")
