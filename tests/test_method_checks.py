"""What a method returns is checked before a model appears; --overwrite replaces earlier merges only."""

import json
import shutil
from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file, save_file

from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe
from wildmerge.vectors.task_vectors import TaskVectors

SOURCE = """from __future__ import annotations
import torch
from wildmerge.vectors.task_vectors import Sum, TaskVectors

def odd(vectors: TaskVectors):
    \"\"\"A method of its author's own.\"\"\"
    return {returned}
"""


def recipe(tiny, **changes):
    content = {"method": "task_arithmetic"} | changes
    return Recipe(**({"base": str(tiny.base), "experts": tuple(map(str, tiny.experts))} | content))


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        ("vectors.total().T.contiguous()", "of shape"),
        ("torch.stack([vectors[0], vectors[1]])", "of shape"),
        ("vectors.total().double()", "float64"),
        ("vectors.total() / 0", "NaN or Inf"),
        ("Sum(float('nan'))", "NaN or Inf"),
        ("lambda deltas, at: deltas", "of shape"),
        ("lambda deltas, at: deltas[0] * float('inf')", "NaN or Inf"),
        ("lambda deltas, at: 0.0", "a float"),
        ("None", "a NoneType"),
        ("[vectors.total()]", "a list"),
        ("(vectors.total(), 3)", "a tuple"),
    ],
)
def test_a_wrong_update_is_refused_by_method_and_tensor(returned, words, tiny, tmp_path):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/odd.py").write_text(SOURCE.format(returned=returned))
    with pytest.raises(Refusal, match=f"odd: tensor [a-z]+.*{words}"):
        merge(
            recipe(tiny, method="odd"),
            tmp_path / "out",
            progress=False,
            method_folders=[tmp_path / "methods"],
        )
    assert not (tmp_path / "out").exists()


def large(folder, to, value):
    """Copy a checkpoint with one large weight, which every copy has."""
    shutil.copytree(folder, to)
    tensors = load_file(to / "model.safetensors")
    tensors["model.norm.weight"][3] = value
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return str(to)


@pytest.mark.parametrize(("value", "fits"), [(65280.0, True), (70000.0, False)])
def test_weights_that_do_not_fit_the_output_are_refused(value, fits, tiny, tmp_path):
    base, *experts = (
        large(folder, tmp_path / str(i), value)
        for i, folder in enumerate([tiny.base, *tiny.experts])
    )
    given = recipe(tiny, base=base, experts=tuple(experts), dtype="float16")
    if fits:
        merge(given, tmp_path / "out", progress=False)
        merged = load_file(tmp_path / "out/model.safetensors")
        assert all(tensor.isfinite().all() for tensor in merged.values())
    else:
        with pytest.raises(Refusal, match=r"model.norm.weight: .* do not fit into float16"):
            merge(given, tmp_path / "out", progress=False)
        assert not (tmp_path / "out").exists()


def test_a_huge_update_has_a_norm(tiny, tmp_path):
    given = recipe(tiny, parameters={"lambda": 1e30}, dtype="float32")
    report = merge(given, tmp_path / "out", progress=False)
    assert 1e28 < report["update_norm"] < 1e40


@pytest.mark.parametrize("shape", [(12, 8), (8, 12), (9, 9)])
def test_a_negative_lambda_of_iso_c_is_the_update_the_other_way(shape):
    from wildmerge.methods.iso_c import iso_c

    generator = torch.Generator().manual_seed(3)
    base = torch.randn(shape, generator=generator)
    experts = [base + 0.1 * torch.randn(shape, generator=generator) for _ in range(3)]
    vectors = TaskVectors(base, experts, name="model.layers.0.mlp.up_proj.weight")
    update = iso_c(vectors, lambda_=-0.5)[0]
    u, sigma, vh = torch.linalg.svd(sum(e - base for e in experts).double(), full_matrices=False)
    assert torch.allclose(update.double(), -0.5 * sigma.mean() * (u @ vh), atol=1e-5)


def test_one_expert_with_hyperparameters_is_refused(tiny, tmp_path):
    single = {"experts": (str(tiny.experts[0]),)}
    for parameters in ({"lambda": 0.5}, {"weights": [0.5]}, {"scale": "sum"}):
        with pytest.raises(Refusal, match=f"{next(iter(parameters))} would have no effect"):
            merge(recipe(tiny, **single, parameters=parameters), tmp_path / "out", progress=False)


def test_an_expert_that_stands_there_twice_is_refused(tiny, tmp_path):
    (tmp_path / "link").symlink_to(tiny.experts[0])
    for again in (tiny.experts[0], tmp_path / "link"):
        twice = (str(tiny.experts[0]), str(tiny.experts[1]), str(again))
        with pytest.raises(Refusal, match=r"stands there twice"):
            merge(recipe(tiny, experts=twice), tmp_path / "out", progress=False)


def test_only_an_earlier_merge_without_inputs_is_replaced(tiny, tmp_path, monkeypatch):
    home = tmp_path / "home"
    shutil.copytree(tiny.base, home / "base")
    experts = [shutil.copytree(e, home / e.name) for e in tiny.experts[:2]]
    (home / "notes").mkdir()
    (home / "notes/text.txt").write_text("mine")
    given = recipe(tiny, base=str(home / "base"), experts=tuple(map(str, experts)))
    monkeypatch.chdir(tmp_path)
    for out, words in [
        (experts[0], "holds .* so kept"),
        (home, "holds .* so kept"),
        (home / "notes", "not a merged model"),
    ]:
        with pytest.raises(Refusal, match=words):
            merge(given, out, overwrite=True, progress=False)
    assert (home / "notes/text.txt").read_text() == "mine"
    merged = home / "merged"
    for _ in range(2):
        merge(given, merged, overwrite=True, progress=False)
    monkeypatch.chdir(merged)
    with pytest.raises(Refusal, match="holds .* so kept"):
        merge(given, merged, overwrite=True, progress=False)


def test_an_earlier_merge_that_is_an_input_or_holds_the_recipe_stays(tiny, tmp_path, capsys):
    first = tmp_path / "first"
    merge(recipe(tiny), first, progress=False)
    again = recipe(tiny, experts=(str(first), str(tiny.experts[0])))
    with pytest.raises(Refusal, match="holds .* so kept"):
        merge(again, first, overwrite=True, progress=False)
    (first / "recipe.yaml").write_text(json.dumps(recipe(tiny).model_dump(mode="json")))
    arguments = ["merge", str(first / "recipe.yaml"), "--out", str(first), "--overwrite"]
    assert main(arguments) == 1
    assert "recipe.yaml, so kept" in capsys.readouterr().err


@pytest.mark.parametrize("refused", [False, True])
def test_a_merge_leaves_the_number_of_threads_as_it_was(refused, tiny, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with suppress(Refusal):
            given = recipe(tiny, parameters={"lambda": 1e38 if refused else 1.0}, dtype="float16")
            merge(given, tmp_path / "out", progress=False, threads=2)
        assert (tmp_path / "out").exists() != refused
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
