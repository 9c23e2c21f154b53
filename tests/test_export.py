"""A study's items are read by other tools: errorbars, pandas, and our own `compare`."""

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from errorbars.inputs import load_inputs
from errorbars.io import load_csv

import synthetic_results
from synthetic_results import asked_of, build, change_answers, write_evaluation
from wildmerge.cli.main import main
from wildmerge.reporting.pairs import compare_results
from wildmerge.reporting.tables.collect import MODEL
from wildmerge.scoring.items import share_items


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def study(tmp_path):
    """One base, two experts, a merge; two benchmarks, of which one is a group and asks twice."""
    results = tmp_path / "results"
    tasks = {"addition": 0.25, "copy_span": 0.25}
    build(
        results,
        bases=("base_1",),
        experts=("a", "b"),
        tasks=tasks,
        variants={"ties": {}},
        sizes={2: 1},
        items=30,
    )
    (file,) = results.glob(f"items/{synthetic_results._digest('copy_span')}.parquet")
    file.unlink()
    asked = asked_of("copy_span", 30)
    items = [
        item._replace(task=f"copy_span_{number // 20}", question=f"{number % 15:016x}")
        for number, item in enumerate(asked.items)
    ]
    share_items(file, replace(asked, items=tuple(items)))
    return results


def export(study, out, *options):
    code = main(["export", "demo", "--results", str(study), "--out", str(out), *options])
    assert code == 0
    return out


def test_errorbars_reads_the_samples(study, tmp_path):
    out = export(study, tmp_path / "out")
    recipes = rows(study / "demo/recipes.csv")
    assert {each.name for each in out.iterdir()} == {recipe["recipe_id"] for recipe in recipes}
    for recipe in recipes:
        read = load_inputs([str(out / recipe["recipe_id"])]).data
        assert len({*read.model}) == 1 and recipe["base"] in read.model[0]
        found = dict(zip(read.question_id, read.score, strict=True))
        assert len(found) == 60
        path = next((study / "evals" / recipe["recipe_id"]).glob("addition-*.parquet"))
        values = pd.read_parquet(path)["acc"]
        assert [found[f"addition-{number}"] for number in range(30)] == values.tolist()
        assert {"copy_span_0-19", "copy_span_1-0", "copy_span_1-9"} < {*found}


def test_compare_reads_the_samples_as_it_reads_the_results(study, tmp_path):
    """A group, too, is the benchmark that it was, and questions that are asked twice are known."""
    out = export(study, tmp_path / "out")
    base, expert = (recipe["recipe_id"] for recipe in rows(study / "demo/recipes.csv")[:2])
    ours, _ = compare_results([study / "evals" / base, study / "evals" / expert], None)
    theirs, remarks = compare_results([out / base, out / expert], None)
    assert not remarks  # they say by what they were scored
    mixed, remarks = compare_results([study / "evals" / base, out / expert], None)
    assert not remarks and mixed["p"].tolist() == ours["p"].tolist()
    assert theirs["label"].tolist() == ["addition", "copy_span", ""]
    numbers = ["estimate_points", "stderr_points", "df", "p", "gained", "lost", "mcnemar_p"]
    pd.testing.assert_frame_equal(ours[numbers], theirs[numbers], rtol=1e-12)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_long_table_has_every_item_of_every_model(study, tmp_path, form):
    path = export(study, tmp_path / "out", "--format", form) / f"items.{form}"
    keep = {"dtype": {"cluster_id": str}, "keep_default_na": True}
    table = pd.read_csv(path, **keep) if form == "csv" else pd.read_parquet(path)
    assert list(table) == [
        *MODEL,
        *("model", "label", "task", "question_id", "cluster_id", "doc_hash"),
        *("score", "gold", "other"),
    ]
    recipes = rows(study / "demo/recipes.csv")
    assert len(table) == len(recipes) * 2 * 30
    assert not table.duplicated(["recipe_id", "question_id"]).any()
    scores = table.groupby(["recipe_id", "label"])["score"].mean()
    tables = tmp_path / "tables"
    assert (
        main(["aggregate", "--study", "demo", "--results", str(study), "--out", str(tables)]) == 0
    )
    for row in rows(tables / "scores.csv"):
        assert scores[row["recipe_id"], row["label"]] == pytest.approx(float(row["score"]))
    group = table[table["label"] == "Copy span"]
    assert (group.groupby(["recipe_id", "cluster_id"]).size() == 2).all()
    assert np.allclose(table["gold"], -1.5) and np.allclose(table["other"], -2.0)


def test_errorbars_reads_the_long_table_with_its_clusters(study, tmp_path):
    out = export(study, tmp_path / "out", "--format", "csv")
    read = load_csv(out / "items.csv")
    assert len(read.models()) == len(rows(study / "demo/recipes.csv"))
    assert len({*read.cluster_id}) == 30 + 15


def test_a_task_asked_in_two_ways_is_two_runs(study, tmp_path):
    """Of one evaluation, all metrics that the study asks for are in one samples file."""
    plain, other = rows(study / "demo/benchmarks.csv")
    few = plain | {"label": "few", "num_fewshot": "5", "evaluation_id": "f" * 16}
    norm = plain | {"label": "norm", "metric": "acc_norm"}
    synthetic_results._write_csv(study / "demo/benchmarks.csv", [plain, other, few, norm])
    for recipe in rows(study / "demo/recipes.csv"):
        write_evaluation(study, recipe, few, [1] * 30)
        (path,) = (study / "evals" / recipe["recipe_id"]).glob(f"*-{plain['evaluation_id']}.json")
        change_answers(path, acc=[1, 0, 0] * 10, acc_norm=[0, 0, 1] * 10)
    folder = next(export(study, tmp_path / "out").iterdir())
    first, second = sorted(folder.glob("samples_addition_*.jsonl"))
    sample = json.loads(first.read_text().splitlines()[0])
    assert (sample["metrics"], sample["acc"], sample["acc_norm"]) == (["acc", "acc_norm"], 1, 0)
    assert json.loads(second.read_text().splitlines()[1])["acc"] == 1
    assert len([*folder.glob("results_*.json")]) == 2


def test_the_same_study_is_the_same_bytes(study, tmp_path):
    for form in ("samples", "csv", "parquet"):
        first, second = (
            export(study, tmp_path / f"{form}-{number}", "--format", form) for number in (1, 2)
        )
        files = [
            {path.relative_to(out): path.read_bytes() for path in out.rglob("*.*")}
            for out in (first, second)
        ]
        assert files[0] == files[1]


def test_a_gap_is_said_and_nothing_is_refused(study, tmp_path, capsys):
    recipe = rows(study / "demo/recipes.csv")[-1]
    shutil.rmtree(study / "evals" / recipe["recipe_id"])
    assert main(["export", "demo", "--results", str(study), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.err == "remark: models that lack results: 1\n"
    assert printed.out == f"{tmp_path / 'out'}: items of 3 models\n"
    shutil.rmtree(study / "evals")
    assert main(["export", "demo", "--results", str(study), "--out", str(tmp_path / "none")]) == 1
    assert "demo: no results yet" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert main(["export", "demo", "--results", str(study), "--out", str(tmp_path / "out")]) == 1
    assert "out: exists; choose another --out" in capsys.readouterr().err
