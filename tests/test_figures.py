"""The figures: complete, the same bytes each time, one look a method, and true to the tables."""

from pathlib import Path

import matplotlib as mpl
import pytest

import synthetic_results
from wildmerge.reporting import appearance
from wildmerge.reporting.figures import (
    accuracy_figure,
    draw_figures,
    grid_figure,
    update_norm_figure,
)
from wildmerge.reporting.grids import find_grids
from wildmerge.reporting.tables import Tables, aggregate, read_tables

DENSITIES = {f"ties density={value}": {"density": value} for value in (0.1, 0.2, 0.4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("figures") / "results"
    synthetic_results.build(
        results,
        bases=("base 1",),
        tasks={"addition": 0.25, "date_order": 0.5},
        variants={"task_arithmetic": {}, "iso_c": {}, "my_mean": {}} | DENSITIES,
        items=50,
    )
    return aggregate(results, "demo")


@pytest.fixture(scope="module")
def tables(folder) -> Tables:
    return read_tables(folder)


def test_all_figures_come_in_three_formats_with_the_same_bytes_each_time(folder, tmp_path):
    first = draw_figures(folder, tmp_path / "first")
    names = {
        "accuracy",
        "update-norm",
        f"benchmarks-{appearance.slug('base 1')}",
        "grid-ties-density",
        "experts",
        "cosines",
    }
    kinds = ("svg", "pdf", "png")
    assert {path.name for path in first} == {f"{name}.{kind}" for name in names for kind in kinds}
    for path, again in zip(first, draw_figures(folder, tmp_path / "second"), strict=True):
        assert path.read_bytes() == again.read_bytes(), path.name


def test_a_line_holds_the_tables_numbers_in_its_methods_look(tables):
    figure = accuracy_figure(tables)
    curve = tables.curves[(tables.curves["variant"] == "iso_c") & (tables.curves["n"] > 0)]
    (line,) = [
        line for axes in figure.axes for line in axes.get_lines() if line.get_label() == "Iso-C"
    ]
    assert list(line.get_xdata()) == list(curve["n"])
    assert list(line.get_ydata()) == list(curve["accuracy"])
    assert line.get_color() == appearance.look("iso_c").colour
    (in_norms,) = [
        line
        for line in update_norm_figure(tables).axes[0].get_lines()
        if line.get_label() == "Iso-C"
    ]
    assert (in_norms.get_color(), in_norms.get_marker()) == (line.get_color(), line.get_marker())


def test_looks_are_distinct_and_an_unknown_methods_look_is_stable():
    looks = [appearance.look(method) for method in appearance.DRAWN]
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == 7
    assert appearance.look("my_mean") == appearance.look("my_mean")
    assert appearance.look("my_mean").colour not in {look.colour for look in looks}


def test_a_grid_needs_three_variants_that_differ_in_one_number(tables):
    (grid,) = find_grids(tables.models)
    assert (grid.method, grid.parameter) == ("ties", "density")
    assert sorted(grid.values.values()) == [0.1, 0.2, 0.4]
    figure = grid_figure(tables, "ties", "density")
    line = figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [0.1, 0.2, 0.4]


def test_drawing_leaves_the_callers_style_alone(tables):
    before = dict(mpl.rcParams)
    accuracy_figure(tables)
    assert dict(mpl.rcParams) == before
