"""The study's figures, from its tables alone: curves, norms, benchmarks, grids, experts, published.

Each figure is written as SVG, PDF and PNG with the same bytes for the same tables. A method has one
colour and one marker everywhere (see `appearance.py`).
"""

import io
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from wildmerge.reporting.appearance import look, slug, variant_label
from wildmerge.reporting.drawing import (
    PER_CENT,
    STYLE,
    base_dashes,
    beside_panel,
    chance_dots,
    draw_band,
    draw_line,
    draw_references,
    families_of,
    finish_panel,
    make_panels,
    panel_width,
    styled,
    variant_curves,
)
from wildmerge.reporting.grids import SMALLEST, find_grids
from wildmerge.reporting.heatmaps import cosine_figure, expert_figure
from wildmerge.reporting.tables import Tables, read_tables
from wildmerge.storage.files import write_atomically

NO_DATE = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {"Software": None},
}
LOG_RANGE = 20  # norms that span more than this factor are drawn on a logarithmic axis


def draw_figures(tables: Path, out: Path) -> list[Path]:
    """Draw all figures of a study and write them as SVG, PDF and PNG.

    Args:
        tables: the directory that `tables.aggregate` returned.
        out: the directory to write to.

    Returns:
        The written paths, sorted.

    Raises:
        Refusal: if a table is missing.
    """
    read, written = read_tables(tables), []
    for name, _, draw in list_figures(read):
        figure = draw()
        figure.draw_without_rendering()  # lays out once, for all three formats
        figure.set_layout_engine("none")
        for kind, metadata in NO_DATE.items():
            content = io.BytesIO()
            with mpl.rc_context(STYLE):
                figure.savefig(
                    content, format=kind, metadata=metadata, dpi=200, bbox_inches="tight"
                )
            written.append(write_atomically(Path(out) / f"{name}.{kind}", content.getvalue()))
    return sorted(written)


class Drawing(NamedTuple):
    """A figure of a study: the name of its file, what it shows, and the function that draws it."""

    name: str
    shows: str
    draw: Callable[[], Figure]


def list_figures(tables: Tables) -> list[Drawing]:
    """Return every figure of a study; each has a file of its own."""
    found = [
        Drawing("accuracy", "Mean accuracy against n", partial(accuracy_figure, tables)),
        Drawing(
            "update-norm", "L2 norm of the update against n", partial(update_norm_figure, tables)
        ),
    ]
    for base in tables.curves["base"].unique():
        draw = partial(benchmark_figure, tables, base)
        found.append(
            Drawing(f"benchmarks-{slug(base)}", f"{base}: accuracy on each benchmark", draw)
        )
    for grid in find_grids(tables.models):
        name = f"grid-{slug(grid.method)}-{slug(grid.parameter)}"
        draw = partial(grid_figure, tables, grid.method, grid.parameter)
        found.append(Drawing(name, f"{grid.method}: mean accuracy against {grid.parameter}", draw))
    if len(tables.experts):
        shows = "Gain of each expert on each benchmark"
        found.append(Drawing("experts", shows, partial(expert_figure, tables)))
    if len(tables.cosines):
        shows = "Cosines between task vectors"
        found.append(Drawing("cosines", shows, partial(cosine_figure, tables)))
    if len(tables.published_comparison):
        shows = "Our differences against the published ones"
        found.append(Drawing("published", shows, partial(published_figure, tables)))
    return found


@styled
def accuracy_figure(tables: Tables) -> Figure:
    """Mean accuracy against n, a column a base and a row a family (the paper's Figures 3 and 6)."""
    curves, bases = tables.curves, list(tables.curves["base"].unique())
    families = families_of(curves)
    figure, panels = make_panels(len(families), len(bases), panel_width(len(bases)))
    for row, family in enumerate(families):
        for column, base in enumerate(bases):
            axes = panels[row, column]
            of_base = curves[(curves["base"] == base) & (curves["n"] > 0)]
            for curve in variant_curves(of_base, family):
                draw_band(axes, curve, "accuracy")
                draw_line(axes, curve, "accuracy")
            draw_references(axes, tables.models, base)
            finish_panel(axes, of_base["n"], base if row == 0 else "", PER_CENT)
            if row == len(families) - 1:
                axes.set_xlabel("experts merged (n)")
        panels[row, 0].set_ylabel("mean accuracy")
        title = f"{family} methods".capitalize() if len(families) > 1 else None
        panels[row, -1].legend(title=title, **beside_panel())
    return figure


@styled
def update_norm_figure(tables: Tables) -> Figure:
    """Mean L2 norm of (merged - base) against n, a column a base (the paper's Figure 4)."""
    curves = tables.curves[tables.curves["n"] > 1]
    bases = list(curves["base"].unique())
    figure, panels = make_panels(1, len(bases), panel_width(len(bases)), 2.7)
    norms = curves["update_norm"]
    wide = norms.min() > 0 and norms.max() / norms.min() > LOG_RANGE
    for axes, base in zip(panels[0], bases, strict=True):
        of_base = curves[curves["base"] == base]
        for curve in variant_curves(of_base):
            draw_line(axes, curve, "update_norm")
        if wide:
            axes.set_yscale("log")
        finish_panel(axes, of_base["n"], base, FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel("experts merged (n)")
    panels[0, 0].set_ylabel("L2 norm of the update" + (" (log scale)" if wide else ""))
    panels[0, -1].legend(**beside_panel())
    return figure


@styled
def benchmark_figure(tables: Tables, base: str) -> Figure:
    """Accuracy on each benchmark against n for one base (the paper's Figures 7 to 10)."""
    curves = tables.benchmark_curves[tables.benchmark_curves["base"] == base]
    labels = list(curves["label"].unique())
    columns = min(4, math.ceil(math.sqrt(len(labels))))
    rows = math.ceil(len(labels) / columns)
    figure, panels = make_panels(rows, columns, width=2.3, height=1.9)
    for position, axes in enumerate(panels.flat):
        if position >= len(labels):
            axes.set_visible(False)
            continue
        of_label = curves[curves["label"] == labels[position]]
        of_sizes = of_label[of_label["n"] > 0]
        for curve in variant_curves(of_sizes):
            draw_line(axes, curve, "accuracy", width=1.1, size=3.5)
        reference = of_label.iloc[0]
        axes.axhline(reference["base_accuracy"], **base_dashes())
        if math.isfinite(reference["chance"]):
            axes.axhline(reference["chance"], **chance_dots())
        finish_panel(axes, of_sizes["n"], reference["label"], PER_CENT)
        if position + columns >= len(labels):
            axes.set_xlabel("experts merged (n)")
        if position % columns == 0:
            axes.set_ylabel("accuracy")
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center")
    figure.suptitle(f"{base}, each benchmark", fontsize=10, fontweight="bold")
    return figure


@styled
def grid_figure(tables: Tables, method: str, parameter: str) -> Figure:
    """Mean accuracy against one hyperparameter, a line a size (the paper's Figures 11 to 13)."""
    wanted = (method, parameter)
    grid = next(grid for grid in find_grids(tables.models) if grid[:2] == wanted)
    curves = tables.curves[tables.curves["variant"].isin(grid.values) & (tables.curves["n"] > 1)]
    curves = curves.assign(value=curves["variant"].map(grid.values)).sort_values("value")
    points = curves.groupby("n")["value"].nunique()
    bases, sizes = list(curves["base"].unique()), list(points.index[points >= SMALLEST])
    shades = sns.light_palette(look(method).colour, n_colors=len(sizes) + 1)[1:]
    figure, panels = make_panels(1, len(bases), panel_width(len(bases)))
    for axes, base in zip(panels[0], bases, strict=True):
        for n, shade in zip(sizes, shades, strict=True):
            line = curves[(curves["base"] == base) & (curves["n"] == n)]
            points = {"color": shade, "marker": look(method).marker, "label": f"n = {n}"}
            axes.plot(line["value"], line["accuracy"], **points)
        draw_references(axes, tables.models, base)
        axes.set_title(base, loc="left")
        axes.yaxis.set_major_formatter(PER_CENT)
        axes.set_xlabel(f"{look(method).label}: {parameter}")
    panels[0, 0].set_ylabel("mean accuracy")
    panels[0, -1].legend(**beside_panel())
    return figure


@styled
def published_figure(tables: Tables) -> Figure:
    """Our mean difference to the reference against the published one, a point a cell of Tables 1-3."""
    cells = tables.published_comparison[~tables.published_comparison["is_average"]]
    bases = list(cells["base"].unique())
    ours, theirs = (f"{who}_delta_points" for who in ("ours", "published"))
    ends = [
        f([cells[ours].min(), cells[theirs].min(), 0.0, cells[theirs].max(), cells[ours].max()])
        for f in (min, max)
    ]
    figure, panels = make_panels(1, len(bases), panel_width(len(bases)), 2.7)
    for axes, base in zip(panels[0], bases, strict=True):
        of_base = cells[cells["base"] == base]
        axes.plot(ends, ends, color="#666666", lw=0.9, ls=":", label="equal")
        for (method, variant), points in of_base.groupby(["method", "variant"], sort=False):
            drawn, main = look(method), variant == method
            axes.plot(
                points[theirs],
                points[ours],
                linestyle="",
                marker=drawn.marker,
                color=drawn.colour,
                markerfacecolor=drawn.colour if main else "white",
                label=variant_label(variant, method),
            )
        axes.set_title(base, loc="left")
        axes.set_xlabel("published (points)")
    panels[0, 0].set_ylabel("ours (points)")
    panels[0, -1].legend(**beside_panel())
    return figure
