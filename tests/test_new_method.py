"""A ninth method is one file and no other edit: listed, checked, hashed, merged, studied."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mini_study import make_study
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.methods import catalogue as methods
from wildmerge.planning.lock import make_lock
from wildmerge.planning.models import list_models
from wildmerge.study.file import load_study
from wildmerge.study.recipe import Recipe

SOURCE = '''"""The element of largest magnitude among the task vectors."""

from __future__ import annotations

from wildmerge.vectors.task_vectors import Rule, TaskVectors


def loudest(vectors: TaskVectors, *, lambda_: float = 1.0) -> Rule:
    """Per element, the task vector's entry of largest magnitude."""
    return lambda deltas, at: lambda_ * deltas.gather(0, deltas.abs().argmax(0, keepdim=True))[0]
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    path = tmp_path / "my_methods"
    path.mkdir()
    (path / "loudest.py").write_text(SOURCE)
    monkeypatch.setenv("WILDMERGE_METHODS", str(path))
    return path


def test_a_method_is_what_the_folder_publishes_and_nothing_else():
    assert methods.discover().keys() == methods.PUBLISHED


def test_it_is_listed_by_the_command_line(folder):
    command = [sys.executable, "-m", "wildmerge.cli", "methods"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert "loudest" in listed.stdout and "largest magnitude" in listed.stdout


def test_it_merges(folder, tiny, tmp_path):
    recipe = Recipe(base=str(tiny.base), experts=tuple(map(str, tiny.experts)), method="loudest")
    merge(recipe, tmp_path / "merged", progress=False)
    merged = load_file(tmp_path / "merged/model.safetensors")["model.norm.weight"]
    base, *experts = (
        load_file(path / "model.safetensors")["model.norm.weight"].float()
        for path in (tiny.base, *tiny.experts)
    )
    expected = [
        max(((e - b).item() for e in es), key=abs) + b.item()
        for b, *es in zip(base, *experts, strict=True)
    ]
    assert torch.equal(merged, torch.tensor(expected).to(merged.dtype))


def ids(study_file):
    study = load_study(study_file)
    return {m.label: m.recipe_id for m in list_models(study, make_lock(study))}


def test_it_is_part_of_a_study_and_its_code_part_of_its_ids(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_study(
        tmp_path, ["llama"], methods=["ties", {"method": "loudest", "lambda": [1.0, 0.5]}]
    )
    before = ids(path)
    assert sum("loudest" in label for label in before) == 6
    file = folder / "loudest.py"
    file.write_text(SOURCE.replace("Per element, the", "For each element, the") + "\n# a comment\n")
    assert ids(path) == before
    file.write_text(SOURCE.replace("argmax(0", "argmin(0"))
    after = ids(path)
    assert {label for label in before if before[label] != after[label]} == {
        label for label in before if "loudest" in label
    }


def test_its_hyperparameters_are_checked(folder, tmp_path):
    path = make_study(tmp_path, ["llama"], methods=[{"method": "loudest", "lamda": 2.0}])
    with pytest.raises(Refusal, match="did you mean 'lambda'"):
        load_study(path)


def test_a_parameter_without_type_or_default_is_refused(folder):
    (folder / "loudest.py").write_text(SOURCE.replace("lambda_: float = 1.0", "lambda_"))
    with pytest.raises(Refusal, match="needs a type and a default"):
        methods.discover()


def test_a_name_defined_twice_is_refused(folder):
    (folder / "again.py").write_text(SOURCE)
    with pytest.raises(Refusal, match="rename one"):
        methods.discover()


def test_documented_example_works(tmp_path, monkeypatch, tiny):
    """The file shown in docs/your-method.md, taken from there."""
    text = (Path(__file__).parent.parent / "docs/your-method.md").read_text()
    (tmp_path / "m").mkdir()
    (tmp_path / "m/trimmed_mean.py").write_text(text.split("```python\n")[1].split("```")[0])
    monkeypatch.setenv("WILDMERGE_METHODS", str(tmp_path / "m"))
    recipe = {"base": str(tiny.base), "experts": [str(e) for e in tiny.experts]}
    report = merge(Recipe(**recipe, method="trimmed_mean"), tmp_path / "merged", progress=False)
    assert report["update_norm"] > 0
