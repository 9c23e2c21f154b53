"""A ninth method is one file and no other edit: listed, checked, hashed, merged, studied, printed."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from mini_study import make_study
from synthetic_results import build
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.methods import catalogue as methods
from wildmerge.planning.lock import make_lock
from wildmerge.planning.models import list_models
from wildmerge.reporting.figures.lines import accuracy_figure
from wildmerge.reporting.tables.study import aggregate, read_tables
from wildmerge.study.file import load_study
from wildmerge.study.recipe import Recipe

SOURCE = '''"""The element of largest magnitude among the task vectors."""

from __future__ import annotations

from wildmerge.methods.declaration import about
from wildmerge.vectors.task_vectors import Rule, TaskVectors


@about(label="The Loudest", family="subspace", source="A. Author, 2026")
def loudest(vectors: TaskVectors, *, lambda_: float = 1.0) -> Rule:
    """Per element, the task vector's entry of largest magnitude."""
    return lambda deltas, at: lambda_ * deltas.gather(0, deltas.abs().argmax(0, keepdim=True))[0]
'''


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my_methods"
    path.mkdir()
    (path / "loudest.py").write_text(SOURCE)
    return path


def test_the_seven_methods_of_the_paper_are_versioned_and_all_others_known_by_their_code():
    own = methods.discover()
    assert all(method.about.source for method in own.values())
    assert {name for name, method in own.items() if method.digest is None} == {
        "task_arithmetic",
        "task_arithmetic_sb",
        "ties",
        "ties_sb",
        "model_stock",
        "tsv_m",
        "iso_c",
    }


def test_it_is_listed_by_the_command_line_with_its_printed_name_and_source(folder):
    command = [sys.executable, "-m", "wildmerge.cli", "methods"]
    env = os.environ | {"WILDMERGE_METHODS": str(folder)}
    listed = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    assert "loudest" in listed and "largest magnitude" in listed
    assert "The Loudest (subspace); A. Author, 2026" in listed
    assert "arXiv 2306.01708" in listed


def test_it_merges(folder, tiny, tmp_path):
    recipe = Recipe(base=str(tiny.base), experts=tuple(map(str, tiny.experts)), method="loudest")
    merge(recipe, tmp_path / "merged", progress=False, method_folders=[folder])
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
    grid = {"method": "loudest", "lambda": [1.0, 0.5]}
    path = make_study(tmp_path, ["llama"], methods=["ties", grid], methods_dir=str(folder))
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
    grid = {"method": "loudest", "lamda": 2.0}
    path = make_study(tmp_path, ["llama"], methods=[grid], methods_dir=str(folder))
    with pytest.raises(Refusal, match="did you mean 'lambda'"):
        load_study(path)


@pytest.mark.parametrize("name", ["tie_ties", "linear"])
def test_another_method_is_not_taken_for_a_misspelt_one(name):
    with pytest.raises(Refusal, match=f"unknown method '{name}'; known: .*, ties, "):
        methods.get(name)


def test_a_misspelt_method_is_suggested():
    with pytest.raises(Refusal, match="did you mean 'task_arithmetic'"):
        methods.get("task_arithmetics")


def test_a_parameter_without_type_or_default_is_refused(folder):
    (folder / "loudest.py").write_text(SOURCE.replace("lambda_: float = 1.0", "lambda_"))
    with pytest.raises(Refusal, match="needs a type and a default"):
        methods.discover([folder])


@pytest.mark.parametrize("kind", ["list[float]", "__import__('os').getpid()", "Sequence"])
def test_a_parameter_of_an_unknown_type_is_refused_and_nothing_of_it_is_run(folder, kind):
    (folder / "loudest.py").write_text(SOURCE.replace("float = 1.0", f"{kind} = 1.0"))
    with pytest.raises(Refusal, match="'lambda_' of loudest.*its type must be one of"):
        methods.discover([folder])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ('label="The Loudest", famly="x"', "did you mean 'family'"),
        ("label=NAME", "only literals"),
        ('label="x", family="loud"', "family"),
        ('label="x", versioned=True', "only wildmerge's own"),
    ],
)
def test_a_wrong_declaration_is_refused_by_name(folder, wrong, message):
    source = SOURCE.replace(
        'label="The Loudest", family="subspace", source="A. Author, 2026"', wrong
    )
    (folder / "loudest.py").write_text(source)
    with pytest.raises(Refusal, match=f"loudest.py.*loudest.*{message}"):
        methods.discover([folder])


def test_a_study_names_its_folder_of_methods_and_needs_no_variable(folder, tmp_path, monkeypatch):
    path = make_study(tmp_path, ["llama"], methods=["loudest"])
    monkeypatch.setenv("WILDMERGE_METHODS", str(folder))
    with pytest.raises(Refusal, match="unknown method 'loudest'"):
        load_study(path)
    path = make_study(tmp_path, ["llama"], methods=["loudest"], methods_dir="nowhere")
    with pytest.raises(Refusal, match="nowhere: no folder of methods"):
        load_study(path)


def test_tables_and_figures_call_it_what_it_declares(folder, tmp_path):
    """From its one file: the printed name, and the table of its family."""
    variants = {"ties": {"density": 0.1}, "loudest": {"lambda": 1.0}}
    build(tmp_path, variants=variants)
    described = [method.row() for method in methods.discover([folder]).values()]
    pd.DataFrame(described).to_csv(tmp_path / "demo/methods.csv", index=False)
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert "The Loudest" in (tmp_path / "demo/tables/table3.tex").read_text()
    assert set(tables.table3["method"]) == {"loudest"}
    drawn = accuracy_figure(tables)
    assert "The Loudest" in {line.get_label() for axes in drawn.axes for line in axes.get_lines()}


def test_a_name_defined_twice_is_refused(folder):
    (folder / "again.py").write_text(SOURCE)
    with pytest.raises(Refusal, match="rename one"):
        methods.discover([folder])


@pytest.mark.parametrize("n", [2, 3])
def test_documented_example_works(n, tmp_path, tiny):
    """The file shown in docs/your-method.md, taken from there."""
    text = (Path(__file__).parent.parent / "docs/your-method.md").read_text()
    (tmp_path / "m").mkdir()
    (tmp_path / "m/trimmed_mean.py").write_text(text.split("```python\n")[1].split("```")[0])
    recipe = Recipe(
        base=str(tiny.base), experts=tuple(map(str, tiny.experts[:n])), method="trimmed_mean"
    )
    report = merge(recipe, tmp_path / "merged", progress=False, method_folders=[tmp_path / "m"])
    assert report["update_norm"] > 0


def test_documented_test_of_a_method_passes_and_can_fail(tmp_path):
    """The float64 oracle shown in docs/your-method.md, run as it stands there."""
    text = (Path(__file__).parent.parent / "docs/your-method.md").read_text()
    method, test = (part.split("```")[0] for part in text.split("```python\n")[1:])
    (tmp_path / "test.py").write_text(test)
    for code, passes in [(method, True), (method.replace(".mean(0)", ".mean(0) * 1.001"), False)]:
        (tmp_path / "trimmed_mean.py").write_text(code)
        command = [sys.executable, "-B", "test.py"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        assert (ran.returncode == 0) == passes, ran.stderr
