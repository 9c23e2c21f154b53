"""The figures: complete, the same bytes each time, one look a method, and true to the tables."""

import math
import re
import warnings
from pathlib import Path

import matplotlib as mpl
import pytest

import synthetic_results
from wildmerge.methods.catalogue import discover
from wildmerge.reporting import appearance
from wildmerge.reporting.appearance import look
from wildmerge.reporting.figures.captions import HOW_TO_READ
from wildmerge.reporting.figures.forests import ranking_figure
from wildmerge.reporting.figures.lines import accuracy_figure, grid_figure, update_norm_figure
from wildmerge.reporting.figures.study import draw_figures, forests, list_figures
from wildmerge.reporting.tables.grids import find_grids
from wildmerge.reporting.tables.study import Tables, aggregate, read_tables

COLUMN_MM = 85
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
    of_base = (
        "benchmarks",
        "cosines",
        "experts",
        "forgetting",
        "gains",
        "method-benchmarks",
        "ranking",
    )
    names = {"accuracy", "distance", "grid-ties-density", "steps", "update-norm"}
    names |= {f"{kind}-{appearance.slug('base 1')}" for kind in of_base}
    kinds = ("svg", "pdf", "png")
    assert {path.name for path in first} == {f"{name}.{kind}" for name in names for kind in kinds}
    for path, again in zip(first, draw_figures(folder, tmp_path / "second"), strict=True):
        assert path.read_bytes() == again.read_bytes(), path.name
    for path in first:
        if path.suffix == ".svg":
            points = float(re.search(r'width="([\d.]+)pt"', path.read_text())[1])
            assert points / 72 * 25.4 < COLUMN_MM + 3, path.name  # read in one column


def test_every_figure_says_what_is_seen_and_how_it_is_read(tables):
    for drawing in list_figures(tables):
        assert HOW_TO_READ[drawing.kind]
        assert len(drawing.shows.split()) > 4


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
    figure = grid_figure(tables, grid)
    line = figure.axes[0].get_lines()[0]
    assert list(line.get_xdata()) == [0.1, 0.2, 0.4]


def test_drawing_leaves_the_callers_style_alone(tables):
    before = dict(mpl.rcParams)
    accuracy_figure(tables)
    assert dict(mpl.rcParams) == before


def test_the_bands_of_the_mean_are_its_interval_over_the_base(tables):
    figure = accuracy_figure(tables)
    curve = tables.curves[(tables.curves["variant"] == "iso_c") & (tables.curves["n"] > 0)]
    colour = mpl.colors.to_rgba(appearance.look("iso_c").colour, 0.13)
    (band,) = [
        band
        for axes in figure.axes
        for band in axes.collections
        if tuple(band.get_facecolor()[0]) == colour
    ]
    corners = {(x, round(y, 9)) for x, y in band.get_paths()[0].vertices}
    for point in curve.itertuples():
        for points in (point.delta_low_points, point.delta_high_points):
            assert (point.n, round(point.base_accuracy + points / 100, 9)) in corners


def test_the_forest_of_gains_holds_every_comparison_with_its_interval(tables):
    compared = tables.comparisons
    sizes = compared[(compared["what"] == "size") & (compared["label"] == "")]
    sizes = sizes[(sizes["reference"] == "base") & (sizes["n"] > 1)]
    wanted = {
        (f"n = {row.n}", row.variant, row.estimate_points, row.low_points, row.high_points)
        for row in sizes.itertuples()
    }
    groups = forests.gains(tables, "base 1")
    lines = [(group.title, line) for group in groups for line in group.lines]
    assert {(title, *line[1:5]) for title, line in lines} == wanted
    verdicts = {(f"n = {row.n}", row.variant): row.verdict for row in sizes.itertuples()}
    for title, line in lines:
        assert line.filled == (verdicts[title, line.variant] in {"gain", "loss"})


def test_the_ranking_marks_what_holms_correction_cannot_tell_from_the_leader(tables):
    pairs = tables.comparisons[tables.comparisons["what"] == "pair"]
    for group in forests.ranking(tables, "base 1"):
        leader, *others = group.lines
        of_size = pairs[pairs["n"] == int(group.title.removeprefix("n = "))]
        for line in others:
            named = {leader.variant, line.variant}
            (row,) = [
                row for row in of_size.itertuples() if {row.variant, row.reference_name} == named
            ]
            assert line.value <= 0
            assert math.isclose(abs(line.value), abs(row.estimate_points))
            assert math.isclose(line.high - line.low, row.high_points - row.low_points)
            assert line.filled == (row.p_adjusted > 0.05)
        assert [line.value for line in group.lines] == sorted(
            (line.value for line in group.lines), reverse=True
        )
    assert ranking_figure(tables, "base 1").axes


def test_a_study_that_shows_next_to_nothing_has_no_empty_figure_and_no_warning(poor, tmp_path):
    """One expert, one method and another that failed, a benchmark of one item, equal accuracies."""
    tables = read_tables(poor)
    kinds = [drawing.kind for drawing in list_figures(tables)]
    assert kinds == ["accuracy", "gains", "method-benchmarks", "benchmarks", "experts", "cosines"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_figures(poor, tmp_path)
        for drawing in list_figures(tables):
            figure = drawing.draw()
            assert all(axes.has_data() for axes in figure.axes), drawing.name
            legends = [text.get_text() for legend in figure.legends for text in legend.texts]
            assert "TIES" not in legends


@pytest.fixture
def poor(tmp_path) -> Path:
    return aggregate(synthetic_results.build_poor(tmp_path / "results"), "demo")


def test_no_two_methods_look_the_same():
    looks = [look(name)[2:] for name in discover()]
    assert len(looks) > 12 and len(set(looks)) == len(looks)
