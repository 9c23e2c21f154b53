"""Ours beside the published tables, cell by cell, and the printed averages that are none."""

import csv
from pathlib import Path

import pytest

import synthetic_results
from wildmerge.errors import Refusal
from wildmerge.reporting.figures.lines import accuracy_figure, grid_figure
from wildmerge.reporting.figures.scatters import published_figure
from wildmerge.reporting.figures.study import list_figures
from wildmerge.reporting.report.study import write_report
from wildmerge.reporting.tables.grids import find_grids
from wildmerge.reporting.tables.published import check_averages, read_published
from wildmerge.reporting.tables.study import aggregate, read_tables

PUBLISHED = Path(__file__).parent.parent / "results/published/published_tables.csv"
BASES = (
    "Llama-3.2-3B-Instruct",
    "Llama-3.1-8B-Instruct",
    "Qwen3-4B",
    "Qwen3-8B",
)
ABLATION = {f"task_arithmetic lambda={x}": {"lambda": x} for x in (0.1, 0.5, 1.9)}


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def published_rows():
    """The published cells under the names of our tables."""
    names = {"base_model": "base", "n_merged": "n", "mean_accuracy_delta_points": "delta_points"}
    return [{names.get(key, key): value for key, value in row.items()} for row in rows(PUBLISHED)]


def build(folder, bases, **changes):
    settings = {
        "bases": bases,
        "tasks": {"addition": 0.25, "date_order": 0.5},
        "variants": {"task_arithmetic": {"lambda": 1.0}, "tsv_m": {}},
        "items": 40,
    }
    study = synthetic_results.build(folder, **(settings | changes))
    aggregate(folder, "demo", PUBLISHED)
    return study


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return build(tmp_path_factory.mktemp("four"), BASES)


def test_every_cell_stands_beside_the_published_one(four):
    found = {
        (r["table"], r["base"], r["variant"], r["n"]): r
        for r in rows(four / "tables/published_comparison.csv")
    }
    # Tables 1, 2 (Task Arithmetic) and 3 (TSV-M) of four bases and their average, sizes 1, 2, 4, 6
    assert len(found) == 3 * 5 * 4
    published = {(r["table"], r["base"], r["method"], r["n"]): r for r in published_rows()}
    ours = {
        (r["table"], r["base"], r["variant"], r["n"]): r
        for number in (1, 2, 3)
        for r in rows(four / f"tables/table{number}.csv")
    }
    for key, cell in found.items():
        for name in ("reference_accuracy_pct", "delta_points"):
            assert float(cell[f"published_{name}"]) == pytest.approx(float(published[key][name]))
            assert cell[f"ours_{name}"] == ours[key][name]
        difference = float(ours[key]["delta_points"]) - float(published[key]["delta_points"])
        assert float(cell["difference_points"]) == pytest.approx(difference, abs=2e-6)


def test_printed_averages_that_are_not_the_mean_of_their_rows_are_marked():
    """Recomputed by a plain loop over the printed rows."""
    words = {
        "reference_accuracy_pct": ("reference", 0.1),
        "pct_subsets_above_reference": ("share", 1),
        "delta_points": ("difference", 0.01),
    }
    printed, wrong = published_rows(), {}
    for row in printed:
        if row["base"] != "average":
            continue
        key = (row["table"], row["method"], row["n"])
        above = [
            other
            for other in printed
            if other["base"] != "average" and (other["table"], other["method"], other["n"]) == key
        ]
        assert len(above) == 4
        for name, (word, place) in words.items():
            mean = sum(float(other[name]) for other in above) / 4
            if abs(mean - float(row[name])) > place + 1e-9:  # half a place each for rows and mean
                wrong.setdefault(key, []).append(word)
    checked = check_averages(read_published(PUBLISHED))
    marked = checked[checked["average_differs_in"] != ""]
    assert set(marked["base"]) == {"average"}
    assert {
        (str(row.table), row.method, str(row.n)): row.average_differs_in.split(" and ")
        for row in marked.itertuples()
    } == wrong
    assert len(wrong) == 15
    assert [key for key in wrong if key[0] == "2"] == [
        ("2", "task_arithmetic", n) for n in ("1", "2", "4", "6", "8", "10", "12")
    ]
    cell = marked[(marked["table"] == 2) & (marked["n"] == 12)]
    assert cell["mean_of_printed_rows"].item() == pytest.approx(0.8625)  # printed: 1.13


def test_marks_reach_the_printed_table_and_the_report(four, tmp_path):
    text = (four / "tables/published_comparison.md").read_text()
    assert "-1.22† (-1.26) / " in text
    for each in list_figures(read_tables(four / "tables")):
        (tmp_path / f"{each.name}.svg").write_text("<svg/>")
    page = write_report(four / "tables", tmp_path, tmp_path / "report.html", "demo").read_text()
    assert "Beside the published numbers" in page
    assert "\u22121.22 † (\u22121.26)" in page


def test_the_figure_has_a_point_a_cell(four):
    tables = read_tables(four / "tables")
    axes = {axes.get_title(loc="left"): axes for axes in published_figure(tables).axes}
    assert tuple(axes) == BASES
    cells = tables.published_comparison
    drawn = [
        tuple(point)
        for line in axes["Qwen3-4B"].get_lines()
        if line.get_label() != "equal"
        for point in line.get_xydata()
    ]
    of_base = cells[cells["base"] == "Qwen3-4B"]
    columns = ["published_delta_points", "ours_delta_points"]
    assert sorted(drawn) == sorted(of_base[columns].itertuples(index=False, name=None))


def test_an_average_over_other_bases_is_not_compared(tmp_path):
    study = build(tmp_path, BASES[2:])
    compared = rows(study / "tables/published_comparison.csv")
    assert {row["base"] for row in compared} == set(BASES[2:])


def test_without_a_shared_cell_there_is_no_figure(tmp_path):
    study = build(tmp_path, ("mine",))
    assert rows(study / "tables/published_comparison.csv") == []
    assert "published" not in [each.name for each in list_figures(read_tables(study / "tables"))]


def test_a_broken_file_of_published_numbers_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("table,reference\n1,base\n")
    with pytest.raises(Refusal, match="column base_model is missing"):
        read_published(tmp_path / "p.csv")
    twice = PUBLISHED.read_text().splitlines()
    (tmp_path / "twice.csv").write_text("\n".join([*twice, twice[1]]))
    with pytest.raises(Refusal, match="stands there twice.*base_model Llama-3.2-3B-Instruct"):
        read_published(tmp_path / "twice.csv")
    with pytest.raises(Refusal, match="none.csv"):
        read_published(tmp_path / "none.csv")


def test_an_ablation_at_one_size_is_read_in_its_grid_alone(tmp_path):
    """As in the paper's study: a grid at the largest n must not crowd tables and curves."""
    variants = {"task_arithmetic": {"lambda": 1.0}} | ABLATION
    study = synthetic_results.build(
        tmp_path, bases=("mine",), tasks={"addition": 0.25}, variants=variants, items=40
    )
    drop_small_sizes(study, set(ABLATION))
    tables = read_tables(aggregate(tmp_path, "demo"))
    assert set(tables.table1["variant"]) == {"task_arithmetic"}
    labels = {line.get_label() for line in accuracy_figure(tables).axes[0].get_lines()}
    assert {label for label in labels if "Arithmetic" in label} == {"Task Arithmetic"}
    (line, *_) = grid_figure(tables, find_grids(tables.models)[0]).axes[0].get_lines()
    assert line.get_label() == "n = 6"
    assert list(line.get_xdata()) == [0.1, 0.5, 1.0, 1.9]


def drop_small_sizes(study, variants):
    path = study / "recipes.csv"
    kept = [r for r in rows(path) if r["variant"] not in variants or r["n"] == "6"]
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(kept[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept)
