"""Checkpoints as people publish them: what differs from the base is bridged and reported, or refused."""

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM

from wild import (
    EMBEDDING,
    HEAD,
    LAYER,
    changed,
    mean_of,
    merged,
    name_tokens,
    refusal,
    tokens_of,
    weights,
    with_tokens,
)
from wildmerge.checkpoints.vocabulary import match_rows
from wildmerge.errors import Refusal

# --- vocabularies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["tiny", "tiny_qwen3"])
@pytest.mark.parametrize("size", ["larger", "smaller", "same"])
def test_rows_are_matched_by_token(architecture, size, request, tmp_path):
    """Aligned, a reordered expert is what it was before, except for rows that only one side has."""
    family = request.getfixturevalue(architecture)
    base = shutil.copytree(family.base, tmp_path / "base")
    known = tokens_of(base)
    known.pop("?")  # the last row is padding
    name_tokens(base, known)
    tokens = sorted(known, reverse=True)
    if size == "larger":
        tokens = ["<new>", *tokens, "<newer>"]
    if size == "smaller":
        tokens = tokens[4:]
    moved = with_tokens(family.experts[0], tmp_path / "moved", tokens)
    recipe = mean_of(family, moved, family.experts[1], base=str(base))
    result, report = merged(recipe, tmp_path / "out")
    plain, _ = merged(mean_of(family, *family.experts[:2]), tmp_path / "plain")
    start, other = weights(family.base), weights(family.experts[1])
    for name, tensor in result.items():
        expected = plain[name].clone()
        if name in {EMBEDDING, HEAD}:
            for row in set(range(32)) - {known[t] for t in tokens if t in known}:  # the base's row
                half = (other[name][row].float() - start[name][row].float()) / 2
                expected[row] = (start[name][row].float() + half).to(expected.dtype)
        assert torch.equal(tensor, expected), name
    counts = {"larger": (31, 1, 3), "smaller": (27, 5, 1), "same": (31, 1, 1)}
    facts = report["alignment"][str(moved)]
    assert (facts["shared_rows"], facts["kept_rows"], facts["dropped_rows"]) == counts[size]
    assert any(f"{counts[size][0]} rows of its vocabulary" in line for line in report["warnings"])
    AutoModelForCausalLM.from_pretrained(tmp_path / "out")


def test_tokens_added_in_spare_rows_change_nothing(tiny, tmp_path):
    """Same size, no token elsewhere: the expert is passed through, byte for byte."""
    base = shutil.copytree(tiny.base, tmp_path / "base")
    known = tokens_of(base)
    name_tokens(base, {token: row for token, row in known.items() if row < 30})
    added = shutil.copytree(tiny.experts[0], tmp_path / "added")
    name_tokens(added, {token: row for token, row in known.items() if row < 29} | {"<new>": 31})
    recipe = mean_of(tiny, added, tiny.experts[1], base=str(base))
    ours, report = merged(recipe, tmp_path / "out")
    plain, _ = merged(mean_of(tiny, *tiny.experts[:2]), tmp_path / "plain")
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    assert report["alignment"] == {} and report["warnings"] == []


@pytest.mark.parametrize("lacking", ["expert", "base"])
def test_other_vocabularies_without_a_tokenizer_are_refused(lacking, tiny, tmp_path):
    tokens = [*tokens_of(tiny.base), "<new>"]
    larger = with_tokens(tiny.experts[0], tmp_path / "larger", tokens, extra_rows=0)
    base = shutil.copytree(tiny.base, tmp_path / "base")
    (({"expert": larger, "base": base}[lacking]) / "tokenizer.json").unlink()
    message = refusal(mean_of(tiny, larger, base=str(base)), tmp_path / "out")
    assert f"{EMBEDDING} has 33 rows, the base 32" in message
    assert "no tokenizer.json" in message


@pytest.mark.parametrize("cut", [EMBEDDING, HEAD])
def test_a_head_of_other_rows_than_the_embedding_is_refused(cut, tiny_qwen3, tmp_path):
    def shorten(tensors):
        tensors[cut] = tensors[cut][:-2].contiguous()

    odd = changed(tiny_qwen3.experts[0], tmp_path / "odd", shorten)
    assert "rows and its embedding" in refusal(mean_of(tiny_qwen3, odd), tmp_path / "out")


def test_tokenizers_that_share_nearly_nothing_are_refused(tiny, tmp_path):
    other = with_tokens(tiny.experts[0], tmp_path / "other", [f"word{i}" for i in range(40)])
    assert "shares only 0 tokens" in refusal(mean_of(tiny, other), tmp_path / "out")


KINDS = {
    "WordLevel": lambda vocab: models.WordLevel(vocab, unk_token="a"),
    "WordPiece": lambda vocab: models.WordPiece(vocab, unk_token="a"),
    "BPE": lambda vocab: models.BPE(vocab, merges=[]),
    "Unigram": lambda vocab: models.Unigram([(token, -1.0) for token in vocab], unk_id=0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_tokenizers_of_every_kind_name_the_rows(kind, tmp_path):
    """Added tokens count too; a file that no tokenizer can be read from is refused."""
    files = []
    for name, pieces in {"base": ["a", "b", "c"], "expert": ["b", "c", "a"]}.items():
        tokenizer = Tokenizer(KINDS[kind]({piece: row for row, piece in enumerate(pieces)}))
        if name == "expert":
            tokenizer.add_special_tokens(["<new>"])
        tokenizer.save(str(tmp_path / f"{name}.json"))
        files.append(tmp_path / f"{name}.json")
    assert match_rows(*files, 3, 4) == ((2, 0, 1), 3, 0, 1)
    files[1].write_text("{}")
    with pytest.raises(Refusal, match="no tokenizer can be read"):
        match_rows(*files, 3, 4)


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["v_head.weight", "model.layers.1.self_attn.rotary_emb.inv_freq"])
def test_extra_tensors_are_listed(name, tiny, tmp_path):
    extra = changed(
        tiny.experts[0], tmp_path / "extra", lambda t: t.update({name: torch.ones(4, 4)})
    )
    ours, report = merged(mean_of(tiny, extra, tiny.experts[1]), tmp_path / "out")
    plain, _ = merged(mean_of(tiny, *tiny.experts[:2]), tmp_path / "plain")
    assert all(torch.equal(ours[key], plain[key]) for key in {*ours, *plain})
    assert report["alignment"][str(extra)] == {"left_out": [name]}
    assert any(name in line for line in report["warnings"])


def test_a_buffer_that_only_the_base_has_is_the_bases(tiny, tmp_path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    base = changed(tiny.base, tmp_path / "base", lambda t: t.update({name: torch.ones(4)}))
    recipe = mean_of(tiny, *tiny.experts[:2], base=str(base))
    ours, report = merged(recipe, tmp_path / "out")
    assert torch.equal(ours[name].float(), torch.ones(4))
    assert report["alignment"][str(tiny.experts[0])] == {"from_base": [name]}


@pytest.mark.parametrize(
    "name",
    ["model.layers.2.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj.bias"],
)
def test_extra_weights_of_the_architecture_are_refused(name, tiny, tmp_path):
    deeper = changed(tiny.experts[0], tmp_path / "b", lambda t: t.update({name: torch.ones(32)}))
    message = refusal(mean_of(tiny, deeper), tmp_path / "out")
    assert str(deeper) in message and f"tensor {name} does not exist in the base" in message


def test_mixed_dtypes_give_one_dtype(tiny, tmp_path):
    def mix(tensors):
        tensors[LAYER] = tensors[LAYER].float() + 1e-4
        tensors["model.norm.weight"] = tensors["model.norm.weight"].half()

    mixed = changed(tiny.experts[0], tmp_path / "mixed", mix)
    ours, report = merged(mean_of(tiny, mixed, tiny.experts[1]), tmp_path / "out")
    assert {tensor.dtype for tensor in ours.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "bfloat16"
    exact = (weights(mixed)[LAYER].double() + weights(tiny.experts[1])[LAYER].double()) / 2
    assert torch.allclose(ours[LAYER].double(), exact, rtol=2**-8, atol=1e-9)
    assert report["remarks"] == [f"{mixed}: stored as BF16, F16, F32"]


def test_a_model_of_another_base_is_refused(tiny, tmp_path):
    def start_anew(tensors):
        generator = torch.Generator().manual_seed(11)
        for name, tensor in tensors.items():
            tensors[name] = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)

    stranger = changed(tiny.experts[0], tmp_path / "stranger", start_anew)
    message = refusal(mean_of(tiny, stranger), tmp_path / "out")
    assert str(stranger) in message and "nothing to do with the base's" in message


# --- quantised weights ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes, 4 bit"),
        ({"quant_method": "awq", "bits": 4}, "awq, 4 bit"),
        ({"quant_method": "fp8"}, "fp8"),
    ],
)
def test_quantisation_is_named(config, words, tiny, tmp_path):
    changes = {"quantization_config": config}
    packed = changed(tiny.experts[0], tmp_path / "packed", lambda t: None, changes)
    for recipe in (mean_of(tiny, packed), mean_of(tiny, tiny.experts[0], base=str(packed))):
        message = refusal(recipe, tmp_path / "out")
        assert f"{packed}: quantised weights ({words})" in message


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({LAYER: torch.ones(48, 32).to(torch.float8_e4m3fn)}, "fp8, F8_E4M3"),
        ({LAYER + "_scale_inv": torch.ones(1)}, "up_proj.weight_scale_inv"),
        ({LAYER + ".quant_state.bitsandbytes__nf4": torch.ones(1)}, "bitsandbytes__nf4"),
        ({LAYER: torch.ones(768, 1).to(torch.uint8)}, "stored as U8"),
    ],
)
def test_quantised_weights_are_known_without_a_config(tensors, words, tiny, tmp_path):
    packed = changed(tiny.experts[0], tmp_path / "packed", lambda t: t.update(tensors))
    message = refusal(mean_of(tiny, packed), tmp_path / "out")
    assert str(packed) in message and words in message


@pytest.mark.parametrize("stored", ["safetensors", "bin"])
def test_an_untied_base_in_float32_is_read_twice_and_changed_never(stored, tiny, tmp_path):
    """Its embedding serves the head too: neither may see what became of the other."""

    def in_float32(tensors):
        tensors.update({name: tensor.float() for name, tensor in tensors.items()})

    base, *experts = (
        changed(folder, tmp_path / folder.name, in_float32)
        for folder in (tiny.base, *tiny.experts[:2])
    )
    if stored == "bin":
        torch.save(weights(base), base / "pytorch_model.bin")
        (base / "model.safetensors").unlink()
    half = {
        "parameters": {"lambda": 0.5}
    }  # not the plain mean: merging into it again changes nothing
    recipe = mean_of(tiny, *experts, base=str(base), untie=True, **half)
    ours, _ = merged(recipe, tmp_path / "out")
    mean = sum(weights(expert)[EMBEDDING].double() for expert in experts) / 2
    expected = (weights(tiny.base)[EMBEDDING].double() + mean) / 2
    for name in (EMBEDDING, HEAD):
        torch.testing.assert_close(ours[name].double(), expected, rtol=1e-6, atol=1e-7)
