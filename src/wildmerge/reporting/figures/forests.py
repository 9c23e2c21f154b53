"""Figures with a row a comparison: gains, distances to the leader, last steps, items won and lost.

Rows and intervals are those of the table of comparisons. The points of a grid made at fewer sizes than
its method are left out; they are read in the figure of the grid.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wildmerge.reporting.appearance import BASE_COLOUR, look, variant_label
from wildmerge.reporting.figures.drawing import COLUMN, key_of, shortened, styled
from wildmerge.reporting.printing import signed
from wildmerge.reporting.story.sentences import cells, select
from wildmerge.reporting.tables.grids import whole_curves
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.of_methods import PAIR, STEP
from wildmerge.statistics.rows import GAIN, LOSS

ROW = 0.135  # inches
SOFT = "#666666"
WON, LOST = "#00588a", "#c75000"


class Line(NamedTuple):
    """A row: a merge variant, its difference in points with an interval, and a note at its right.

    The marker of what is beyond noise, or shares the lead, is filled.
    """

    method: str
    variant: str
    value: float
    low: float
    high: float
    filled: bool
    note: str


class Group(NamedTuple):
    """Rows under one headline."""

    title: str
    lines: list[Line]


def gains(tables: Tables, base: str) -> list[Group]:
    """Return the gain over its base of each variant, size by size."""
    return [
        Group(f"n = {n}", [_line(row) for row in rows.itertuples()])
        for n, rows in _points(tables, base).groupby("n")
    ]


def ranking(tables: Tables, base: str) -> list[Group]:
    """Return how far each variant is behind the leading one, at each size with several."""
    pairs = select(tables.comparisons, what=PAIR, base=base)
    return [
        Group(f"n = {n}", _behind(rows, pairs[pairs["n"] == n]))
        for n, rows in _points(tables, base).groupby("n")
        if len(rows) > 1
    ]


def steps(tables: Tables) -> list[Group]:
    """Return what each further expert adds to each variant, base by base."""
    rows = _whole(tables, select(tables.comparisons, what=STEP))
    ends = rows.groupby(["base", "reference_name", "n"], sort=False)
    return [
        Group(f"{shortened(base, 24)}, {smaller} to {n}", [_line(row) for row in same.itertuples()])
        for (base, smaller, n), same in ends
    ]


def changed(tables: Tables, base: str) -> pd.DataFrame:
    """Return a base's merged models with the items that they won and lost, if there are any."""
    models = _whole(tables, tables.models[tables.models["base"] == base])
    models = models[models["kind"] == "merge"].dropna(subset=["gained", "lost"])
    return models if models[["gained", "lost"]].any(axis=None) else models.iloc[:0]


@styled
def gain_figure(tables: Tables, base: str) -> Figure:
    """Gain of each variant over the base at each size, with 95 % intervals."""
    label = f"gain over {shortened(base)} (points)"
    return _forest(gains(tables, base), label, note="gain")


@styled
def ranking_figure(tables: Tables, base: str) -> Figure:
    """Variants in the order of their means: filled ones cannot be distinguished from the leader."""
    label = f"behind the leader on {shortened(base, 24)} (points)"
    return _forest(ranking(tables, base), label, note="gain")


@styled
def step_figure(tables: Tables) -> Figure:
    """What each further expert adds between the two largest sizes, with 95 % intervals."""
    return _forest(steps(tables), "each further expert adds (points)", note="step")


@styled
def change_figure(tables: Tables, base: str) -> Figure:
    """Items that each merged model won and lost against the base, a bar a model."""
    models = changed(tables, base).sort_values("n", kind="stable")
    rows = list(models.groupby(["n", "method", "variant"], sort=False))
    groups: dict[str, list[str]] = {}
    for (n, method, variant), _ in rows:
        groups.setdefault(f"n = {n}", []).append(variant_label(variant, method))
    figure, axes, places = _lay_out(list(groups.items()))
    for place, ((_, method, variant), of_row) in zip(places, rows, strict=True):
        thickness = 0.8 / len(of_row)
        y = place - 0.4 + thickness * (np.arange(len(of_row)) + 0.5)
        for items, colour in ((of_row["gained"], WON), (-of_row["lost"], LOST)):
            bars = axes.barh(y, items, thickness, color=colour, linewidth=0)
            for bar in bars:
                bar.set_gid(key_of(variant_label(variant, method)))
    for text, colour, side in (("lost ", LOST, "right"), (" won", WON, "left")):
        axes.text(0, -0.6, text, color=colour, ha=side, va="bottom", weight="bold")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    axes.set_xlabel(f"items lost and won against {shortened(base, 24)}")
    return figure


def _whole(tables: Tables, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of variants that were made at all sizes of their method."""
    return rows[rows["variant"].isin(whole_curves(tables.curves)["variant"])]


def _points(tables: Tables, base: str) -> pd.DataFrame:
    return _whole(tables, select(cells(tables.comparisons), base=base))


def _line(row: Any) -> Line:
    """Return a comparison as a row, filled where it is a gain or a loss."""
    interval = row.estimate_points, row.low_points, row.high_points
    decided = row.verdict in {GAIN, LOSS}
    return Line(row.method, row.variant, *interval, decided, signed(row.estimate_points, 1))


def _behind(rows: pd.DataFrame, pairs: pd.DataFrame) -> list[Line]:
    """Return the leading variant at 0 and the others by their difference to it."""
    ranked = rows.sort_values("estimate_points", ascending=False, kind="stable").itertuples()
    first = next(ranked)
    lines = [_line(first)._replace(value=0.0, low=0.0, high=0.0, filled=True)]
    for row in ranked:
        value, low, high, apart = _difference(pairs, row.variant, first.variant)
        lines.append(_line(row)._replace(value=value, low=low, high=high, filled=not apart))
    return lines


def _difference(pairs: pd.DataFrame, one: str, other: str) -> tuple[float, float, float, bool]:
    """Return how far a variant is above another, its interval, and whether that is beyond noise."""
    for pair in select(pairs, variant=one, reference_name=other).itertuples():
        apart = pair.verdict in {GAIN, LOSS}
        return pair.estimate_points, pair.low_points, pair.high_points, apart
    for pair in select(pairs, variant=other, reference_name=one).itertuples():
        apart = pair.verdict in {GAIN, LOSS}
        return -pair.estimate_points, -pair.high_points, -pair.low_points, apart
    return math.nan, math.nan, math.nan, False


def _forest(groups: Sequence[Group], label: str, note: str) -> Figure:
    """Draw rows with their intervals, and their notes in a column at the right."""
    names = [
        (group.title, [variant_label(line.variant, line.method) for line in group.lines])
        for group in groups
    ]
    figure, axes, places = _lay_out(names)
    lines = [line for group in groups for line in group.lines]
    for y, line in zip(places, lines, strict=True):
        drawn, key = look(line.method), key_of(variant_label(line.variant, line.method))
        axes.plot([line.low, line.high], [y, y], color=drawn.colour, linewidth=1.0, gid=key)
        axes.plot(
            [line.value],
            [y],
            marker=drawn.marker,
            markerfacecolor=drawn.colour if line.filled else "white",
            markeredgecolor=drawn.colour,
            markeredgewidth=0.9,
            gid=key,
        )
        _note(axes, y, line.note)
    _note(axes, -0.8, note, color=SOFT)
    axes.set_xlabel(label)
    return figure


def _note(axes: Axes, y: float, text: str, **style: Any) -> None:
    """Print a text at the right of a row."""
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
    aligned: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": 6}
    axes.annotate(text, (1, y), (24, 0), **place, **aligned, **style)


def _lay_out(groups: Sequence[tuple[str, list[str]]]) -> tuple[Figure, Axes, list[float]]:
    """Make axes with a headline a group and a name a row.

    Returns:
        The figure, its axes, and the height of each row on the y axis, which grows downwards.
    """
    places: list[float] = []
    headlines: list[tuple[float, str]] = []
    bottom = 0.0
    for title, names in groups:
        headlines.append((bottom, title))
        places += [bottom + 1 + position for position in range(len(names))]
        bottom += len(names) + 1.4
    figure = Figure(figsize=(COLUMN, ROW * bottom + 0.45), layout="constrained")
    axes = figure.subplots()
    axes.set_ylim(bottom - 0.6, -0.8)
    axes.set_yticks(places, [shortened(name, 30) for _, names in groups for name in names])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", visible=True)
    axes.axvline(0, color=BASE_COLOUR, linewidth=0.8, zorder=1.5)
    for y, title in headlines:
        place = axes.get_yaxis_transform()
        text = axes.text(0, y, title, transform=place, va="center", weight="bold")
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8})
    return figure, axes, places
