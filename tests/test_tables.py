"""The tables say what the result files say: recomputed here by plain loops over the files."""

import csv
import functools
import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import synthetic_results
from wildmerge.errors import Refusal
from wildmerge.reporting.tables.collect import collect
from wildmerge.reporting.tables.frames import DELTA, UNBIASED
from wildmerge.reporting.tables.layouts import to_latex
from wildmerge.reporting.tables.study import Tables, aggregate, compute_tables, read_tables
from wildmerge.scoring.items import share_items


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("tables") / "results"
    synthetic_results.build(results)
    aggregate(results, "demo")
    return results


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@functools.cache
def scores_by_model(results: Path) -> dict[str, list[float]]:
    """Read every model's scores straight from its result files, once."""
    return {
        recipe["recipe_id"]: [
            json.loads(path.read_text())["metrics"]["acc"]["score"]
            for path in sorted((results / "evals" / recipe["recipe_id"]).glob("*.json"))
        ]
        for recipe in rows(results / "demo/recipes.csv")
    }


def accuracies(results: Path, **wanted: str) -> list[float]:
    """Mean accuracies of the models whose recipe has these values."""
    scores = scores_by_model(results)
    found = []
    for recipe in rows(results / "demo/recipes.csv"):
        if all(recipe[key] == value for key, value in wanted.items()):
            values = scores[recipe["recipe_id"]]
            found.append(sum(values) / len(values))
    return found


def of_bases(cells: list[dict[str, str]]) -> list[dict[str, str]]:
    return [cell for cell in cells if cell["is_average"] == "False"]


def test_every_cell_of_tables_1_and_3_is_recomputed_by_loops(results):
    cells = rows(results / "demo/tables/table1.csv") + rows(results / "demo/tables/table3.csv")
    assert len(of_bases(cells)) == 2 * 8 * 4  # bases, variants, sizes with the single experts
    for cell in of_bases(cells):
        (base,) = accuracies(results, base=cell["base"], kind="base")
        wanted = {"base": cell["base"], "n": cell["n"]}
        if cell["n"] != "1":
            wanted["variant"] = cell["variant"]
        models = accuracies(results, **wanted)
        above = sum(model > base + 1e-9 for model in models)
        delta = sum(model - base for model in models) / len(models)
        assert int(cell["subsets"]) == int(cell["subsets_planned"]) == len(models)
        assert float(cell["reference_accuracy_pct"]) == pytest.approx(100 * base, abs=1e-9)
        assert float(cell["pct_subsets_above_reference"]) == pytest.approx(
            100 * above / len(models), abs=1e-9
        )
        assert float(cell["delta_points"]) == pytest.approx(100 * delta, abs=1e-9)


def test_table_2_compares_task_arithmetic_with_the_best_expert_of_the_base(results):
    cells = rows(results / "demo/tables/table2.csv")
    assert {cell["method"] for cell in cells} == {"task_arithmetic"}
    for cell in of_bases(cells):
        best = max(accuracies(results, base=cell["base"], kind="expert"))
        assert float(cell["reference_accuracy_pct"]) == pytest.approx(100 * best, abs=1e-9)


def test_the_average_block_is_the_mean_of_the_rows_above_it(results):
    for number in (1, 2, 3):
        cells = rows(results / f"demo/tables/table{number}.csv")
        averages = [cell for cell in cells if cell["is_average"] == "True"]
        assert averages
        for average in averages:
            same = [
                float(cell["delta_points"])
                for cell in of_bases(cells)
                if (cell["variant"], cell["n"]) == (average["variant"], average["n"])
            ]
            assert float(average["delta_points"]) == pytest.approx(sum(same) / 2, abs=1e-9)


def test_methods_stand_in_their_own_table(results):
    tables = read_tables(results / "demo/tables")
    assert set(tables.table1["method"]) == {"task_arithmetic", "ties", "model_stock"}
    assert set(tables.table3["method"]) == {"tsv_m", "iso_c", "task_arithmetic_sb", "ties_sb"}
    assert "ties density=0.2" in set(tables.table1["variant"])


def test_curves_hold_base_experts_and_sizes_with_the_sample_deviation(results):
    for point in rows(results / "demo/tables/curves.csv"):
        wanted = {"base": point["base"], "n": point["n"]}
        if int(point["n"]) > 1:
            wanted["variant"] = point["variant"]
        models = accuracies(results, **wanted)
        mean = sum(models) / len(models)
        assert float(point["accuracy"]) == pytest.approx(mean, abs=1e-9)
        assert int(point["subsets"]) == len(models)
        if len(models) == 1:
            assert point["sd"] == ""
        else:
            squares = sum((model - mean) ** 2 for model in models)
            deviation = math.sqrt(squares / (len(models) - 1))
            assert float(point["sd"]) == pytest.approx(deviation, abs=1e-9)


def test_an_experts_gain_and_its_error_come_from_the_same_items(results):
    recipes = rows(results / "demo/recipes.csv")
    expert = next(recipe for recipe in recipes if recipe["kind"] == "expert")
    base = next(recipe for recipe in recipes if recipe["kind"] == "base")
    (path,) = (results / "evals" / expert["recipe_id"]).glob("addition-*.json")
    after, before = (
        pq.read_table(results / "evals" / model["recipe_id"] / f"{path.stem}.parquet")["acc"]
        for model in (expert, base)
    )
    changes = [int(a) - int(b) for a, b in zip(after.to_pylist(), before.to_pylist(), strict=True)]
    mean = sum(changes) / len(changes)
    variance = sum((change - mean) ** 2 for change in changes) / (len(changes) - 1)
    row = next(
        row
        for row in rows(results / "demo/tables/experts.csv")
        if (row["base"], row["expert"], row["task"])
        == (expert["base"], expert["experts"], "addition")
    )
    assert float(row["delta_points"]) == pytest.approx(100 * mean, abs=1e-9)
    assert float(row["delta_stderr_points"]) == pytest.approx(
        100 * math.sqrt(variance / len(changes) + 2 / len(changes) ** 2), abs=1e-9
    )


def test_the_same_results_give_the_same_bytes_and_tables_keep_every_digit(results):
    folder = results / "demo/tables"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    aggregate(results, "demo")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == {f"{n}.{kind}" for n in Tables._fields for kind in ("csv", "parquet")} | {
        f"table{number}.{kind}" for number in (1, 2, 3) for kind in ("tex", "md")
    } | {"published_comparison.md"}
    shares = rows(folder / "table1.csv")
    thirds = [float(cell["pct_subsets_above_reference"]) for cell in shares if cell["n"] == "1"]
    assert {share * 6 / 100 for share in thirds} <= set(range(7))  # exact, not to six digits


def test_what_is_read_back_is_what_was_computed_to_the_last_digit(results):
    computed = compute_tables(results, "demo", None, strict=False)
    for name, frame in read_tables(results / "demo/tables")._asdict().items():
        numbers = getattr(computed, name).select_dtypes("float")
        assert frame[list(numbers)].equals(numbers.reset_index(drop=True)), name


def test_parquet_holds_what_the_csv_holds(results):
    folder = results / "demo/tables"
    for name, frame in read_tables(folder)._asdict().items():
        stored = pd.read_parquet(folder / f"{name}.parquet")
        assert list(stored) == list(frame), name
        for column in frame.select_dtypes("float"):
            assert stored[column].astype(float).equals(frame[column]), (name, column)


def test_every_column_of_every_table_is_documented(results):
    text = (Path(__file__).parents[1] / "docs/results.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    ends = {name.removeprefix("<difference>") for name in named if "<difference>" in name}
    differences = {*DELTA.values(), UNBIASED, "above_chance"}
    assert differences <= named
    named |= {f"{difference}{end}" for difference in differences for end in ends}
    tables = read_tables(results / "demo/tables")
    assert set(tables._fields) <= named
    assert {column for frame in tables for column in frame} <= named


def small(results: Path, **changes) -> Path:
    """Build the smallest study: one base, two experts, one benchmark."""
    settings = {
        "bases": ("base_1",),
        "experts": ("a", "b"),
        "tasks": {"addition": 0.25},
        "sizes": {2: 1},
        "items": 8,
    }
    return synthetic_results.build(results, **(settings | changes))


def test_a_users_own_method_joins_table_1_and_names_are_escaped(tmp_path):
    small(tmp_path, variants={"my_mean": {}})
    tables = aggregate(tmp_path, "demo")
    assert [row["method"] for row in rows(tables / "table1.csv")] == ["my_mean", "my_mean"]
    assert "base\\_1" in (tables / "table1.tex").read_text()
    for number in (2, 3):  # no such method: a table without rows, which still reads back
        assert "No such method" in (tables / f"table{number}.md").read_text()
    assert read_tables(tables).table2.empty


def test_a_merge_report_of_before_leaves_the_share_lost_in_rounding_unknown(tmp_path):
    small(tmp_path, variants={"ties": {}, "iso_c": {}})
    (path,) = (p for p in (tmp_path / "merges").glob("*.json") if "iso_c" in p.read_text())
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"rounding_share": 0.25}))
    models = {row["method"]: row for row in rows(aggregate(tmp_path, "demo") / "models.csv")}
    assert (models["iso_c"]["rounding_share"], models["ties"]["rounding_share"]) == ("0.25", "")


# --- one key -----------------------------------------------------------------------------------


def test_one_task_twice_with_other_settings_is_two_benchmarks(tmp_path):
    """Few-shot or another metric of the same task: two rows, two scores, and both in the mean."""
    study = small(tmp_path)
    (plain,) = rows(study / "benchmarks.csv")
    few = plain | {"label": "few", "num_fewshot": "5", "evaluation_id": "f" * 16}
    norm = plain | {"label": "norm", "metric": "acc_norm"}
    synthetic_results._write_csv(study / "benchmarks.csv", [plain, few, norm])
    truth = {"Addition": [1, 0, 0, 0, 0, 0, 0, 0], "few": [1] * 6 + [0] * 2, "norm": [1] * 8}
    for recipe in rows(study / "recipes.csv"):
        synthetic_results.write_evaluation(tmp_path, recipe, few, truth["few"])
        path = synthetic_results.write_evaluation(tmp_path, recipe, plain, truth["Addition"])
        synthetic_results.change_answers(path, acc=truth["Addition"], acc_norm=truth["norm"])
    tables = read_tables(aggregate(tmp_path, "demo"))
    scores = tables.scores[tables.scores["kind"] == "base"]
    assert dict(zip(scores["label"], scores["score"], strict=True)) == {
        label: sum(values) / 8 for label, values in truth.items()
    }
    assert set(tables.models["accuracy"]) == {(1 / 8 + 6 / 8 + 1) / 3}
    assert list(tables.benchmark_curves["label"].unique()) == list(truth)
    assert len(tables.experts) == 2 * 3


def test_a_benchmark_that_would_count_twice_in_every_mean_is_refused(tmp_path):
    study = small(tmp_path)
    (plain,) = rows(study / "benchmarks.csv")
    synthetic_results._write_csv(study / "benchmarks.csv", [plain, plain | {"label": "again"}])
    with pytest.raises(Refusal, match=r"twice \(Addition, again\)"):
        aggregate(tmp_path, "demo")


def test_a_base_may_be_called_average(tmp_path):
    """Its rows are its own, and the mean over bases is over it as over any other."""
    small(tmp_path, bases=("average", "other"), variants={"ties": {}})
    tables = aggregate(tmp_path, "demo")
    cells = rows(tables / "table1.csv")
    merged = [cell for cell in cells if cell["n"] == "2"]
    assert [(c["base"], c["is_average"]) for c in merged] == [
        ("average", "False"),
        ("other", "False"),
        ("average", "True"),
    ]
    own, other, mean = (float(cell["delta_points"]) for cell in merged)
    assert mean == pytest.approx((own + other) / 2)
    text = (tables / "table1.md").read_text()
    assert "| average (" in text and "| Average over bases (" in text


def test_bases_and_experts_may_be_called_as_files_and_columns_are(tmp_path):
    small(tmp_path, bases=("m", "m.cosines"), experts=("expert", "other"))
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert list(tables.cosines.itertuples(index=False, name=None)) == [
        ("m", "other", "expert", 0.25),
        ("m.cosines", "other", "expert", 0.25),
    ]
    assert len(tables.inspection) == 2 * 3


def test_an_expert_named_like_a_missing_value_keeps_its_name(tmp_path):
    small(tmp_path, experts=("NA", "null"))
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert set(tables.experts["expert"]) == {"NA", "null"}


# --- what a result file says is compared with what was asked -----------------------------------


def one_result(results: Path) -> tuple[Path, dict]:
    recipe = next(row for row in rows(results / "demo/recipes.csv") if row["kind"] == "merge")
    (path,) = (results / "evals" / recipe["recipe_id"]).glob("*.json")
    return path, json.loads(path.read_text())


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema": 2}, r"another version of wildmerge \(schema 2, not 3\); remove it and run"),
        ({"model": "0" * 16}, "model is '0000000000000000', not"),
        ({"evaluation_id": "other"}, "evaluation_id is 'other', not"),
        ({"task": "other"}, "task is 'other', not 'addition'"),
        ({"metrics": {"f1": {}}}, "no metric 'acc', it has f1"),
        ({"n": 9}, "has 8 items and its result 9"),
        ({"metrics": {"acc": {"score": 0.99, "stderr": 0.1}}}, "mean of acc is not the result's"),
    ],
)
def test_a_result_of_something_else_is_refused_by_name(tmp_path, change, message):
    small(tmp_path)
    path, record = one_result(tmp_path)
    path.write_text(json.dumps(record | change))
    with pytest.raises(Refusal, match=message) as refusal:
        aggregate(tmp_path, "demo")
    assert str(path.with_suffix("")) in str(refusal.value)


def test_models_that_answered_different_items_are_never_compared(tmp_path):
    """Not the same items, or the same in another order or with choices shuffled otherwise."""
    small(tmp_path)
    path, record = one_result(tmp_path)
    path.write_text(json.dumps(record | {"documents": "other"}))
    with pytest.raises(Refusal, match=r"base base_1 \(.*a\+b on base_1 \(.*different items"):
        aggregate(tmp_path, "demo")


def test_values_between_0_and_1_are_kept(tmp_path):
    """A metric such as a probability mass is a mean over items, too."""
    small(tmp_path)
    for path in (tmp_path / "evals").glob("*/*.json"):
        synthetic_results.change_answers(path, acc=[0.25, 0.35] * 4)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"chance": None}))
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert tables.scores["score"].to_list() == pytest.approx([0.3] * len(tables.scores))
    assert tables.scores["chance"].isna().all()


def test_a_merge_report_that_is_no_json_is_refused(tmp_path):
    small(tmp_path)
    report = sorted((tmp_path / "merges").iterdir())[0]
    report.write_text(report.read_text()[:20])
    with pytest.raises(Refusal, match="not valid JSON"):
        aggregate(tmp_path, "demo")


@pytest.mark.parametrize("change", ["cut", "gone", "other"])
def test_items_that_are_not_those_of_the_answers_are_refused_by_name(tmp_path, change):
    small(tmp_path)
    (path,) = tmp_path.glob("items/*.parquet")
    content = path.read_bytes()
    path.unlink()
    if change == "cut":
        path.write_bytes(content[:-9])
    if change == "other":
        share_items(path, synthetic_results.asked_of("other", 8))
    with pytest.raises(Refusal, match=f"{path}: ") as refusal:
        aggregate(tmp_path, "demo")
    assert "\n" not in str(refusal.value)


def test_a_question_asked_more_than_once_is_known_to_the_statistics(tmp_path):
    small(tmp_path)
    assert collect(tmp_path, "demo").clusters == {"Addition": None}
    (path,) = tmp_path.glob("items/*.parquet")
    path.unlink()
    asked = synthetic_results.asked_of("addition", 8)
    items = [item._replace(question=f"{number // 2}") for number, item in enumerate(asked.items)]
    share_items(path, replace(asked, items=tuple(items)))
    clusters = collect(tmp_path, "demo").clusters["Addition"]
    assert clusters.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


# --- gaps --------------------------------------------------------------------------------------


def lose(results: Path, **wanted: str) -> dict[str, str]:
    """Remove the results of the first model of this kind; return its recipe."""
    recipe = next(
        row
        for row in rows(results / "demo/recipes.csv")
        if all(row[key] == value for key, value in wanted.items())
    )
    shutil.rmtree(results / "evals" / recipe["recipe_id"])
    return recipe


def fail(results: Path, recipe: dict[str, str], why: str) -> None:
    """Leave the record of a job in which this model failed."""
    record = {"label": "job", "started": 0.0, "failures": {recipe["recipe_id"]: why}, "error": why}
    synthetic_results._write_json(results / "demo/status/0.json", record)


def test_one_failed_model_leaves_a_gap_that_the_tables_show(tmp_path):
    synthetic_results.build(tmp_path, variants={"ties": {}, "iso_c": {}}, items=20)
    aggregate(tmp_path, "demo")
    whole = rows(tmp_path / "demo/tables/curves.csv")
    recipe = lose(tmp_path, base="tiny-llama", variant="ties", n="4")
    fail(tmp_path, recipe, "out of memory")
    tables = aggregate(tmp_path, "demo")
    (cell,) = (
        cell
        for cell in rows(tables / "table1.csv")
        if (cell["base"], cell["n"]) == ("tiny-llama", "4")
    )
    assert (cell["subsets"], cell["subsets_planned"]) == ("1", "2")
    assert "(1 of 2 subsets)" in (tables / "table1.md").read_text()
    assert r"\rlap{$^{1/2}$}" in (tables / "table1.tex").read_text()
    missing = rows(tables / "missing.csv")
    assert {row["recipe_id"] for row in missing} == {recipe["recipe_id"]}
    assert len(missing) == 6 and {row["why"] for row in missing} == {"out of memory"}
    there = rows(tables / "curves.csv")  # all other points are as they were
    family = {"delta_p_adjusted", "delta_best_expert_unbiased_p_adjusted"}
    family |= {"delta_verdict", "delta_best_expert_unbiased_verdict"}
    changed = [
        a
        for a, b in zip(whole, there, strict=True)
        if any(a[column] != b[column] for column in a.keys() - family)
    ]
    assert [(row["base"], row["variant"], row["n"]) for row in changed] == [
        ("tiny-llama", "ties", "4")
    ]
    with pytest.raises(Refusal, match=r"no result of ties of .* \(out of memory\), and 5 more"):
        aggregate(tmp_path, "demo", strict=True)


def test_a_model_whose_job_was_killed_has_the_jobs_error(tmp_path):
    small(tmp_path, variants={"ties": {}, "iso_c": {}})
    recipe = lose(tmp_path, variant="ties")
    record = {"label": "job", "started": 0.0, "models": [recipe["recipe_id"]], "error": "killed"}
    synthetic_results._write_json(tmp_path / "demo/status/0.json", record)
    (row,) = rows(aggregate(tmp_path, "demo") / "missing.csv")
    assert row["why"] == "killed"


def test_a_size_of_which_nothing_is_there_stays_in_the_table(tmp_path):
    """A variant is no ablation only because its models failed."""
    synthetic_results.build(tmp_path, variants={"ties": {}, "ties density=0.2": {}}, items=20)
    for base in synthetic_results.BASES:
        lose(tmp_path, base=base, variant="ties", n="6")
    tables = aggregate(tmp_path, "demo")
    cells = [cell for cell in rows(tables / "table1.csv") if cell["variant"] == "ties"]
    assert {cell["n"] for cell in cells} == {"1", "2", "4", "6"}
    (empty, _) = (cell for cell in of_bases(cells) if cell["n"] == "6")
    assert (empty["subsets"], empty["delta_points"]) == ("0", "")


def test_without_its_base_nothing_is_compared(tmp_path):
    synthetic_results.build(tmp_path, variants={"ties": {}}, items=20)
    lose(tmp_path, base="tiny-llama", kind="base")
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert set(tables.models["base"]) == set(tables.curves["base"]) == {"tiny-qwen3"}
    assert set(tables.scores["base"]) == {"tiny-llama", "tiny-qwen3"}
    assert not tables.table1["is_average"].any()


def test_a_study_without_any_merge_yet_is_refused_with_model_and_benchmark(tmp_path):
    small(tmp_path, variants={"ties": {}})
    lose(tmp_path, kind="merge")
    with pytest.raises(Refusal, match=r"ties a\+b on Addition \(not made yet\)"):
        aggregate(tmp_path, "demo")


def test_a_result_whose_answers_are_gone_is_a_gap(tmp_path):
    small(tmp_path)
    path, _ = one_result(tmp_path)
    path.with_suffix(".parquet").unlink()
    (row,) = rows(aggregate(tmp_path, "demo") / "missing.csv")
    assert (row["recipe_id"], row["label"]) == (path.parent.name, "Addition")


def test_a_merge_without_its_report_counts_as_not_made(tmp_path):
    small(tmp_path, variants={"ties": {}, "iso_c": {}})
    sorted((tmp_path / "merges").iterdir())[0].unlink()
    assert len(rows(aggregate(tmp_path, "demo") / "missing.csv")) == 1


# --- LaTeX -------------------------------------------------------------------------------------

PAGE = r"""\documentclass[%s]{article}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="pdflatex is not there")
@pytest.mark.parametrize("columns", ["onecolumn", "twocolumn"])
@pytest.mark.parametrize("sizes", [{2: 2, 4: 2, 6: 1}, dict.fromkeys((2, 4, 6, 8, 10, 12), 1)])
def test_latex_tables_fit_the_page(tmp_path, columns, sizes):
    variants = synthetic_results.VARIANTS | {"task_arithmetic scale=sum": {"scale": "sum"}}
    synthetic_results.build(
        tmp_path, experts=tuple("abcdefghijkl"), sizes=sizes, variants=variants, items=20
    )
    tables = read_tables(aggregate(tmp_path, "demo"))
    wide = [frame.assign(delta_points=-44.91) for frame in tables.numbered]
    texts = [to_latex(number, frame) for number, frame in enumerate(wide, start=1)]
    (tmp_path / "page.tex").write_text(PAGE % (columns, "\n".join(texts)))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
