"""Figures over the number of merged experts, or over a hyperparameter: a line a merge variant."""

import math

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from wildmerge.reporting.appearance import look
from wildmerge.reporting.figures.drawing import (
    NUMBER,
    PER_CENT,
    add_legend,
    base_dashes,
    chance_dots,
    draw_band,
    draw_line,
    draw_on_log,
    draw_references,
    families_of,
    finish_panel,
    is_wide,
    label_left,
    make_panels,
    make_row,
    shortened,
    styled,
    variant_curves,
)
from wildmerge.reporting.tables.grids import SMALLEST, Grid
from wildmerge.reporting.tables.study import Tables

EXPERTS = "experts merged (n)"


def made(curves: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """Return the points of merged models that are there."""
    return curves[curves["n"] > 1].dropna(subset=column)


def norms(tables: Tables) -> pd.DataFrame:
    """Return the points of merged models whose distance to the base is known, if they are several."""
    known = made(tables.curves, "update_norm")
    return known if len(known) > 1 else known.iloc[:0]


def on_benchmarks(tables: Tables, base: str) -> pd.DataFrame:
    """Return the points of a base's merged models on each benchmark."""
    return made(tables.benchmark_curves[tables.benchmark_curves["base"] == base])


def of_grid(tables: Tables, grid: Grid) -> pd.DataFrame:
    """Return the points of a grid, with their values, at the sizes that have enough of them."""
    curves = made(tables.curves[tables.curves["variant"].isin(grid.values)])
    curves = curves.assign(value=curves["variant"].map(grid.values)).sort_values("value")
    values = curves.groupby("n")["value"].nunique()
    return curves[curves["n"].isin(values.index[values >= SMALLEST])]


@styled
def accuracy_figure(tables: Tables) -> Figure:
    """Mean accuracy against n, a row a base and a column a family (the paper's Figures 3 and 6)."""
    shown = made(tables.curves)
    bases, families = list(shown["base"].unique()), families_of(shown)
    figure, panels = make_panels(len(bases), len(families), sharey="row")
    for row, base in zip(panels, bases, strict=True):
        of_base = tables.curves[(tables.curves["base"] == base) & (tables.curves["n"] > 0)]
        for axes, family in zip(row, families, strict=True):
            for curve in variant_curves(of_base, family):
                draw_band(axes, curve)
                draw_line(axes, curve, "accuracy")
            draw_references(axes, tables.models, base)
            title = family if base == bases[0] and len(families) > 1 else ""
            finish_panel(axes, of_base["n"], title, PER_CENT)
        row[0].set_ylabel(f"{shortened(base, 24)}\nmean accuracy")
    for axes in panels[-1]:
        axes.set_xlabel(EXPERTS)
    add_legend(figure)
    return figure


@styled
def update_norm_figure(tables: Tables) -> Figure:
    """Mean L2 norm of (merged - base) against n, a panel a base (the paper's Figure 4)."""
    curves = norms(tables)
    bases = list(curves["base"].unique())
    figure, panels = make_row(bases)
    for axes, base in zip(panels, bases, strict=True):
        of_base = curves[curves["base"] == base]
        for curve in variant_curves(of_base):
            draw_line(axes, curve, "update_norm")
        finish_panel(axes, of_base["n"], shortened(base, 24), NUMBER)
        if is_wide(curves["update_norm"]):
            draw_on_log(axes, "y")
        axes.set_xlabel(EXPERTS)
    label_left(panels, "L2 norm of the update")
    add_legend(figure)
    return figure


@styled
def benchmark_figure(tables: Tables, base: str) -> Figure:
    """Accuracy on each benchmark against n for one base (the paper's Figures 7 to 10)."""
    curves = tables.benchmark_curves[tables.benchmark_curves["base"] == base]
    labels = list(on_benchmarks(tables, base)["label"].unique())
    most = 2 if len(labels) < 5 else 3
    figure, panels = make_row(labels, most, height=1.25 if most == 2 else 1.05)
    for axes, label in zip(panels, labels, strict=True):
        of_label = curves[curves["label"] == label]
        of_sizes = of_label[of_label["n"] > 0]
        for curve in variant_curves(of_sizes):
            draw_line(axes, curve, "accuracy", width=0.9, size=2.6)
        axes.axhline(of_label["base_accuracy"].iat[0], **base_dashes())
        if math.isfinite(chance := of_label["chance"].iat[0]):
            axes.axhline(chance, **chance_dots())
        title = shortened(label, 14 if most == 3 else 24)
        finish_panel(axes, of_sizes["n"], title, PER_CENT, apart=0.12)
    for axes in panels[(len(panels) - 1) // most * most :]:  # the last row
        axes.set_xlabel(EXPERTS)
    label_left(panels, "accuracy")
    figure.suptitle(shortened(base), x=0.01, ha="left", fontsize=8, fontweight="bold")
    add_legend(figure)
    return figure


@styled
def grid_figure(tables: Tables, grid: Grid) -> Figure:
    """Mean accuracy against one hyperparameter, a line a size (the paper's Figures 11 to 13)."""
    curves, method = of_grid(tables, grid), look(grid.method)
    bases, sizes = list(curves["base"].unique()), sorted(curves["n"].unique())
    shades = sns.light_palette(method.colour, n_colors=len(sizes) + 1)[1:]
    figure, panels = make_row(bases)
    for axes, base in zip(panels, bases, strict=True):
        for n, shade in zip(sizes, shades, strict=True):
            line = curves[(curves["base"] == base) & (curves["n"] == n)]
            axes.plot(
                line["value"],
                line["accuracy"],
                color=shade,
                marker=method.marker,
                label=f"n = {n}",
            )
        draw_references(axes, tables.models, base)
        axes.set_title(shortened(base), loc="left")
        axes.yaxis.set_major_formatter(PER_CENT)
        axes.set_xlabel(f"{method.label}: {grid.parameter}")
    label_left(panels, "mean accuracy")
    add_legend(figure, columns=3)
    return figure
