"""The tables say what the result files say: recomputed here by plain loops over the files."""

import csv
import functools
import json
import math
from pathlib import Path

import pytest

import synthetic_results
from wildmerge.errors import Refusal
from wildmerge.reporting.tables import Tables, aggregate, read_tables


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
            json.loads(path.read_text())["score"]
            for path in sorted((results / "evals" / recipe["recipe_id"]).iterdir())
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


def test_every_cell_of_tables_1_and_3_is_recomputed_by_loops(results):
    cells = rows(results / "demo/tables/table1.csv") + rows(results / "demo/tables/table3.csv")
    of_bases = [cell for cell in cells if cell["base"] != "average"]
    assert len(of_bases) == 2 * 8 * 4  # bases, variants, sizes with the single experts
    for cell in of_bases:
        (base,) = accuracies(results, base=cell["base"], kind="base")
        wanted = {"base": cell["base"], "n": cell["n"]}
        if cell["n"] != "1":
            wanted["variant"] = cell["variant"]
        models = accuracies(results, **wanted)
        above = sum(model > base + 1e-9 for model in models)
        delta = sum(model - base for model in models) / len(models)
        assert int(cell["subsets"]) == len(models)
        assert float(cell["reference_accuracy_pct"]) == pytest.approx(100 * base, abs=1e-6)
        assert float(cell["pct_subsets_above_reference"]) == pytest.approx(
            100 * above / len(models), abs=1e-6
        )
        assert float(cell["delta_points"]) == pytest.approx(100 * delta, abs=1e-6)


def test_table_2_compares_task_arithmetic_with_the_best_expert_of_the_base(results):
    cells = rows(results / "demo/tables/table2.csv")
    assert {cell["method"] for cell in cells} == {"task_arithmetic"}
    for cell in cells:
        if cell["base"] == "average":
            continue
        best = max(accuracies(results, base=cell["base"], kind="expert"))
        assert float(cell["reference_accuracy_pct"]) == pytest.approx(100 * best, abs=1e-6)


def test_the_average_block_is_the_mean_of_the_rows_above_it(results):
    for number in (1, 2, 3):
        cells = rows(results / f"demo/tables/table{number}.csv")
        averages = [cell for cell in cells if cell["base"] == "average"]
        assert averages
        for average in averages:
            same = [
                float(cell["delta_points"])
                for cell in cells
                if cell["base"] != "average"
                and (cell["variant"], cell["n"]) == (average["variant"], average["n"])
            ]
            assert float(average["delta_points"]) == pytest.approx(sum(same) / 2, abs=2e-6)


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
        assert float(point["accuracy"]) == pytest.approx(mean, abs=1e-6)
        assert int(point["subsets"]) == len(models)
        if len(models) == 1:
            assert point["sd"] == ""
        else:
            squares = sum((model - mean) ** 2 for model in models)
            deviation = math.sqrt(squares / (len(models) - 1))
            assert float(point["sd"]) == pytest.approx(deviation, abs=1e-6)


def test_an_experts_gain_and_its_error_come_from_the_same_items(results):
    recipes = rows(results / "demo/recipes.csv")
    expert = next(recipe for recipe in recipes if recipe["kind"] == "expert")
    base = next(recipe for recipe in recipes if recipe["kind"] == "base")
    (path,) = (results / "evals" / expert["recipe_id"]).glob("addition-*.json")
    after = json.loads(path.read_text())["items"]["correct"]
    before = json.loads((results / "evals" / base["recipe_id"] / path.name).read_text())
    changes = [a - b for a, b in zip(after, before["items"]["correct"], strict=True)]
    mean = sum(changes) / len(changes)
    variance = sum((change - mean) ** 2 for change in changes) / (len(changes) - 1)
    row = next(
        row
        for row in rows(results / "demo/tables/experts.csv")
        if (row["base"], row["expert"], row["task"])
        == (expert["base"], expert["experts"], "addition")
    )
    assert float(row["delta_points"]) == pytest.approx(100 * mean, abs=1e-6)
    assert float(row["delta_stderr_points"]) == pytest.approx(
        100 * math.sqrt(variance / len(changes)), abs=1e-6
    )


def test_the_same_results_give_the_same_bytes(results):
    folder = results / "demo/tables"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    aggregate(results, "demo")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert set(before) == {f"{name}.csv" for name in Tables._fields} | {
        f"table{number}.{kind}" for number in (1, 2, 3) for kind in ("tex", "md")
    } | {"published_comparison.md"}


def test_printed_tables_hold_the_cells_as_printed(results):
    cell = next(
        cell
        for cell in rows(results / "demo/tables/table1.csv")
        if (cell["base"], cell["variant"], cell["n"]) == ("tiny-llama", "ties density=0.2", "4")
    )
    share = f"{float(cell['pct_subsets_above_reference']):.0f}"
    delta = f"{float(cell['delta_points']):+.2f}"
    markdown = (results / "demo/tables/table1.md").read_text()
    latex = (results / "demo/tables/table1.tex").read_text()
    assert f"| {share} % / {delta} |" in markdown
    assert f"{share} & ${delta}$" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1


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


def test_a_missing_result_is_refused_with_model_benchmark_and_command(tmp_path):
    small(tmp_path)
    recipe = next(row for row in rows(tmp_path / "demo/recipes.csv") if row["kind"] == "merge")
    (path,) = (tmp_path / "evals" / recipe["recipe_id"]).iterdir()
    path.unlink()
    with pytest.raises(Refusal, match=r"task_arithmetic of a\+b on base_1 on Addition.*snakemake"):
        aggregate(tmp_path, "demo")


def test_a_missing_merge_report_and_a_broken_result_are_refused(tmp_path):
    small(tmp_path)
    report = sorted((tmp_path / "merges").iterdir())[0]
    content = report.read_text()
    report.unlink()
    with pytest.raises(Refusal, match="merge report"):
        aggregate(tmp_path, "demo")
    report.write_text(content[: len(content) // 2])
    with pytest.raises(Refusal, match="not JSON"):
        aggregate(tmp_path, "demo")


def test_an_expert_named_like_a_missing_value_keeps_its_name(tmp_path):
    small(tmp_path, experts=("NA", "null"))
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert set(tables.experts["expert"]) == {"NA", "null"}
