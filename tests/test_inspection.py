"""Inspection: distances and cosines of real weights, who is the same, what would be left out and why."""

import csv

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wild import EMBEDDING, HEAD, UNTIED, changed, give_head, tokens_of, with_tokens
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.merging.inspection import inspect, render


def flat(folder):
    tensors = load_file(folder / "model.safetensors")
    return np.concatenate([tensors[name].double().numpy().ravel() for name in sorted(tensors)])


def test_distances_and_cosines_are_those_of_the_whole_weights(tiny):
    found = inspect(tiny.base, {folder.name: folder for folder in tiny.experts})
    base = flat(tiny.base)
    deltas = np.stack([flat(folder) - base for folder in tiny.experts])
    norms = np.linalg.norm(deltas, axis=1)
    assert [float(row["distance"]) for row in found.rows] == pytest.approx(list(norms), rel=1e-5)
    relative = [float(row["relative"]) for row in found.rows]
    assert relative == pytest.approx(list(norms / np.linalg.norm(base)), rel=1e-3)
    np.testing.assert_allclose(found.cosines, deltas @ deltas.T / np.outer(norms, norms), atol=1e-5)
    assert "of all weights" in render(found)


def test_the_same_expert_twice_and_the_base_itself_are_named(tiny, tmp_path):
    def to_float(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.float()

    copy = changed(tiny.experts[0], tmp_path / "copy", to_float)  # other bytes, same weights
    experts = {"first": tiny.experts[0], "copy": copy, "base": tiny.base, "other": tiny.experts[1]}
    rows = {row["expert"]: row for row in inspect(tiny.base, experts).rows}
    assert "the same weights as first" in rows["copy"]["remarks"]
    assert rows["base"]["remarks"] == "the same weights as the base"
    assert rows["other"]["remarks"] == rows["first"]["remarks"] == ""


def test_what_would_be_left_out_is_told(tiny, tmp_path):
    larger = with_tokens(tiny.experts[0], tmp_path / "larger", [*tokens_of(tiny.base), "<new>"])
    copied = changed(tiny.experts[1], tmp_path / "copied", give_head)
    found = inspect(tiny.base, {"larger": larger, "copied": copied})
    assert "2 rows are dropped" in found.rows[0]["remarks"]
    assert "equal to its embedding and left out" in found.rows[1]["remarks"]


def test_one_bad_expert_does_not_hide_the_others(tiny, tiny_qwen3, tmp_path):
    def poison(tensors):
        tensors[EMBEDDING][3, 3] = float("inf")

    own = changed(tiny.experts[0], tmp_path / "own", lambda t: give_head(t, noise=0.1), UNTIED)
    experts = {
        "inf": changed(tiny.experts[0], tmp_path / "inf", poison),
        "own": own,
        "good": tiny.experts[1],
        "qwen3": tiny_qwen3.experts[0],
        "absent": tmp_path / "absent",
    }
    found = inspect(tiny.base, experts)
    assert [row["merges"] for row in found.rows] == ["no", "no", "yes", "no", "no"]
    words = ["holds NaN or Inf", HEAD, "", "model_type 'qwen3'", "no such checkpoint folder"]
    for row, word in zip(found.rows, words, strict=True):
        assert word in row["refusal"]
    assert found.names == ["good"]
    untied = inspect(tiny.base, {"own": own}, untie=True)
    assert untied.rows[0]["merges"] == "yes"


def test_the_text_fits_a_terminal(tiny, tmp_path):
    names = [f"an-organisation/an-expert-with-a-rather-long-name-{i}" for i in range(12)]
    experts = {name: tiny.experts[i % 3] for i, name in enumerate(names)}
    text = render(inspect(tiny.base, {**experts, "missing": tmp_path / ("x" * 100)}), width=100)
    assert max(map(len, text.splitlines()[:-14])) <= 120  # a path cannot be broken
    assert max(map(len, text.splitlines()[-14:])) <= 100
    assert "0.00" in text and "1.00" in text


def test_the_command_writes_both_tables_and_says_who_does_not_merge(
    tiny, tiny_qwen3, tmp_path, capsys
):
    out = tmp_path / "t.csv"
    good = [str(folder) for folder in tiny.experts[:2]]
    assert main(["inspect", str(tiny.base), *good, "--out", str(out)]) == 0
    assert "cosines between task vectors" in capsys.readouterr().out
    with open(tmp_path / "t+cosines.csv") as stream:
        (pair,) = csv.DictReader(stream)
    assert [pair["expert"], pair["other"]] == good[::-1]
    assert -1 <= float(pair["cosine"]) <= 1
    assert main(["inspect", str(tiny.base), *good, str(tiny_qwen3.base), "--out", str(out)]) == 1
    assert "model_type 'qwen3'" in capsys.readouterr().err
    with open(out) as stream:
        assert [row["merges"] for row in csv.DictReader(stream)] == ["yes", "yes", "no"]


def test_a_quantised_base_is_refused_at_once(tiny, tmp_path):
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    base = changed(tiny.base, tmp_path / "base", lambda t: t.update(x=torch.ones(1)), config)
    with pytest.raises(Refusal, match="gptq, 4 bit"):
        inspect(base, {"one": tiny.experts[0]})
