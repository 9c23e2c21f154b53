"""How the study's figures are drawn: the house style, panels, curves and reference lines.

`figures.py` says what each figure shows; this module knows how a curve or a base line looks.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from wildmerge.reporting.appearance import BASE_COLOUR, FAMILIES, LINE_STYLES, look, variant_label
from wildmerge.reporting.grids import whole_curves

STYLE = {
    **sns.axes_style("ticks"),
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.5,
    "lines.markersize": 5,
    "svg.hashsalt": "wildmerge",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a name is a name, dollars and all
}
KEY = "key:"
PER_CENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function in the house style, and leave the caller's style alone."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def make_panels(
    rows: int, columns: int, width: float = 2.9, height: float = 2.5
) -> tuple[Figure, np.ndarray]:
    """Make a grid of panels with room for a legend on the right.

    Args:
        rows: number of rows.
        columns: number of columns.
        width: of one panel, in inches.
        height: of one panel, in inches.

    Returns:
        The figure and its axes, (rows, columns).
    """
    figure = Figure(figsize=(width * columns + 1.5, height * rows + 0.2), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def panel_width(panels: int) -> float:
    """Return the width in inches of each of some panels in a row, so that a page can hold them."""
    return max(1.8, min(2.9, 7.6 / panels))


def families_of(curves: pd.DataFrame) -> list[str]:
    """Return the families of methods that occur in these curves."""
    present = {look(method).family for method in curves["method"]}
    return [family for family in FAMILIES if family in present]


def variant_curves(curves: pd.DataFrame, family: str | None = None) -> Iterator[pd.DataFrame]:
    """Yield each variant's curve in n, with a label and the number of its line style.

    The points of a grid made at fewer sizes than its method are left out. The variants of a method with
    more variants than line styles are yielded with style -1 and one label for all: they are read in the
    figure of their grid.
    """
    for method, of_method in whole_curves(curves).groupby("method", sort=False):
        if family not in {None, look(str(method)).family}:
            continue
        variants = list(of_method.groupby("variant", sort=False))
        crowd = f"{look(str(method)).label} ({len(variants)} variants)"
        for position, (variant, curve) in enumerate(variants):
            label, style = variant_label(str(variant), str(method)), position
            if len(variants) > len(LINE_STYLES):
                label, style = crowd if position == 0 else f"_{variant}", -1
            yield curve.sort_values("n").assign(label=label, style=style)


def draw_line(
    axes: Axes, curve: pd.DataFrame, column: str, width: float = 1.5, size: float = 5
) -> None:
    """Draw one variant's curve in its method's colour and marker."""
    first = curve.iloc[0]
    drawn, style = look(first["method"]), int(first["style"])
    crowded = style < 0
    axes.plot(
        curve["n"],
        curve[column],
        color=drawn.colour,
        alpha=0.6 if crowded else 1.0,
        marker=drawn.marker,
        markerfacecolor="white" if style > 0 else drawn.colour,
        markeredgecolor=drawn.colour if style > 0 else "white",
        markeredgewidth=1.0 if style > 0 else 0.5,
        linestyle="-" if crowded else LINE_STYLES[style],
        linewidth=width * (0.6 if crowded else 1.0),
        markersize=size * (0.6 if crowded else 1.35 if drawn.marker in "PX*" else 1.0),
        label=first["label"],
        gid=key_of(first["label"]),
    )


def key_of(label: str) -> str:
    """Return the id of the parts of a figure that belong to one method or expert."""
    return KEY + label


def draw_band(axes: Axes, curve: pd.DataFrame, column: str) -> None:
    """Shade one standard deviation over subsets, where there are two or more subsets."""
    if curve["style"].iat[0] < 0:
        return
    curve = curve.dropna(subset="sd")
    colour = look(curve["method"].iat[0]).colour if len(curve) else BASE_COLOUR
    low, high = curve[column] - curve["sd"], curve[column] + curve["sd"]
    key = key_of(curve["label"].iat[0]) if len(curve) else None
    axes.fill_between(curve["n"], low, high, color=colour, alpha=0.13, linewidth=0, gid=key)


def draw_references(axes: Axes, models: pd.DataFrame, base: str) -> None:
    """Draw the mean accuracies of the base (dashed) and of its best single expert (dotted)."""
    model = models[models["base"] == base].iloc[0]
    axes.axhline(model["base_accuracy"], **base_dashes())
    if not math.isnan(model["best_expert_accuracy"]):
        axes.axhline(
            model["best_expert_accuracy"], color="#666666", lw=1.1, ls=":", label="best expert"
        )


def base_dashes() -> dict[str, Any]:
    """Return how a base's line is drawn."""
    return {"color": BASE_COLOUR, "lw": 1.1, "ls": (0, (5, 2)), "label": "base", "zorder": 1.5}


def chance_dots() -> dict[str, Any]:
    """Return how the score of a random choice is drawn."""
    return {"color": "#999999", "lw": 0.9, "ls": (0, (1, 2)), "label": "chance"}


def beside_panel() -> dict[str, Any]:
    """Place a legend to the right of its panel."""
    return {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "alignment": "left"}


def finish_panel(axes: Axes, ns: pd.Series, title: str, formatter: FuncFormatter) -> None:
    """Give a panel over n its ticks, title and number format."""
    axes.set_xticks(sorted(ns.unique()))
    axes.set_title(title, loc="left")
    axes.yaxis.set_major_formatter(formatter)
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
