"""How the study's figures are drawn: the house style, panels, curves and reference lines.

`figures.py` says what each figure shows; this module knows how a curve or a base line looks.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from wildmerge.reporting.appearance import BASE_COLOUR, FAMILIES, LINE_STYLES, look, variant_label
from wildmerge.reporting.tables.grids import whole_curves

DPI = 300
STYLE = {
    **sns.axes_style("ticks"),
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "svg.hashsalt": "wildmerge",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "figure.constrained_layout.use": True,
    "figure.dpi": DPI,  # letters are as wide when the figure is laid out as when it is saved
    "text.parse_math": False,  # a name is a name, dollars and all
}
KEY = "key:"
COLUMN = 85 / 25.4
"""Width of every figure in inches: one column of a journal, a little less than a phone."""
LOG_RANGE, CROWDED = 20, 100
REFERENCES = ("base", "best expert", "chance", "equal")
LEGEND_ROW = 0.14  # inches
NUMBER = FuncFormatter(lambda value, _: f"{value:g}")
PER_CENT = FuncFormatter(lambda value, _: f"{100 * value:g} %")


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Run a drawing function in the house style, and leave the caller's style alone."""

    @functools.wraps(draw)
    def wrapped(*args: Any, **kwargs: Any) -> Figure:
        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return wrapped


def make_panels(
    rows: int, columns: int, height: float = 1.5, **options: Any
) -> tuple[Figure, np.ndarray]:
    """Make a grid of panels, as wide as a column.

    Args:
        rows: number of rows.
        columns: number of columns.
        height: of one panel, in inches.
        options: of `Figure.subplots`.

    Returns:
        The figure and its axes, (rows, columns).
    """
    figure = Figure(figsize=(COLUMN, height * rows + 0.3), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def make_row(names: Sequence[str], most: int = 2, **options: Any) -> tuple[Figure, list[Axes]]:
    """Make a panel for each name, some beside each other, without empty ones.

    Args:
        names: of what has a panel of its own.
        most: panels beside each other.
        options: of `make_panels`.

    Returns:
        The figure and one axes a name.
    """
    columns = min(most, len(names))
    figure, panels = make_panels(math.ceil(len(names) / columns), columns, **options)
    for axes in panels.flat[len(names) :]:
        axes.remove()
    return figure, list(panels.flat[: len(names)])


def add_legend(figure: Figure, columns: int = 2) -> None:
    """Give a figure one legend of all its panels, below them, and the height that it takes."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    handles = dict(sorted(handles.items(), key=lambda pair: pair[0] in REFERENCES))
    height = figure.get_figheight() + LEGEND_ROW * math.ceil(len(handles) / columns)
    figure.set_figheight(height)
    labels = [shortened(label) for label in handles]
    figure.legend(handles.values(), labels, loc="outside lower center", ncols=columns)


def shortened(name: str, longest: int = 34) -> str:
    """Return a name that fits: of a long one the middle is left out."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def is_wide(values: pd.Series) -> bool:
    """Say whether positive values span so much that they are drawn on a logarithmic axis."""
    return bool(values.min() > 0 and values.max() / values.min() > LOG_RANGE)


def draw_on_log(axes: Axes, which: str) -> None:
    """Make the "x" or "y" axis logarithmic, with ticks at powers of ten, or 1, 2 and 5 times these."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < CROWDED * low else (1,)))
    axis.set_major_formatter(NUMBER)
    axis.set_minor_locator(NullLocator())


def label_left(panels: Sequence[Axes], label: str) -> None:
    """Label the y axes of the panels in the first column."""
    for axes in panels:
        place = axes.get_subplotspec()
        if place and place.is_first_col():
            axes.set_ylabel(label)


def families_of(curves: pd.DataFrame) -> list[str]:
    """Return the families of methods that occur in these curves."""
    present = {look(method).family for method in curves["method"]}
    return [family for family in FAMILIES if family in present]


def variant_curves(curves: pd.DataFrame, family: str | None = None) -> Iterator[pd.DataFrame]:
    """Yield each variant's curve in n, with a label and the number of its line style.

    Points without a model have no place, and a variant without one is left out, as are the points of
    a grid made at fewer sizes than its method. The variants of a method with more variants than line
    styles are yielded with style -1 and one label for all: they are read in the figure of their grid.
    """
    merged = curves.dropna(subset="accuracy").query("n > 1")["variant"].unique()
    kept = whole_curves(curves).dropna(subset="accuracy")
    kept = kept[kept["variant"].isin(merged)]
    for method, of_method in kept.groupby("method", sort=False):
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
    axes: Axes, curve: pd.DataFrame, column: str, width: float = 1.2, size: float = 4
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


def draw_band(axes: Axes, curve: pd.DataFrame) -> None:
    """Shade the 95 % interval of the difference to the base, set upon the base's accuracy."""
    first = curve.iloc[0]
    if first["style"] < 0:
        return
    low, high = (
        (curve["base_accuracy"] + curve[f"delta_{end}_points"] / 100).clip(0, 1)
        for end in ("low", "high")
    )
    style: dict[str, Any] = {"color": look(first["method"]).colour, "alpha": 0.13, "linewidth": 0}
    axes.fill_between(curve["n"], low, high, gid=key_of(first["label"]), **style)


def draw_references(axes: Axes, models: pd.DataFrame, base: str) -> None:
    """Draw the mean accuracies of the base (dashed) and of its best single expert (dotted)."""
    model = models[models["base"] == base].iloc[0]
    axes.axhline(model["base_accuracy"], **base_dashes())
    if not math.isnan(model["best_expert_accuracy"]):
        axes.axhline(
            model["best_expert_accuracy"], color="#666666", lw=0.9, ls=":", label="best expert"
        )


def base_dashes() -> dict[str, Any]:
    """Return how a base's line is drawn."""
    return {"color": BASE_COLOUR, "lw": 0.9, "ls": (0, (5, 2)), "label": "base", "zorder": 1.5}


def chance_dots() -> dict[str, Any]:
    """Return how the score of a random choice is drawn."""
    return {"color": "#999999", "lw": 0.9, "ls": (0, (1, 2)), "label": "chance"}


def finish_panel(
    axes: Axes, ns: pd.Series, title: str, formatter: FuncFormatter, apart: float = 0.0
) -> None:
    """Give a panel over n its ticks, title and number format.

    Args:
        axes: the panel.
        ns: the sizes.
        title: of the panel.
        formatter: of the numbers on the y axis.
        apart: how far ticks are apart at least, as a share of the panel's width.
    """
    ticks: list[int] = []
    for n in sorted(ns.unique()):
        if not ticks or n - ticks[-1] >= apart * (ns.max() - ns.min()):
            ticks.append(n)
    axes.set_xticks(ticks)
    axes.set_title(title, loc="left")
    axes.yaxis.set_major_formatter(formatter)
    axes.yaxis.set_major_locator(MaxNLocator(5))
