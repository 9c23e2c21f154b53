"""Figures with a point a model or a cell: gain against distance, ours against the published numbers."""

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from wildmerge.reporting.appearance import BASE_COLOUR, look, method_order, variant_label
from wildmerge.reporting.figures.drawing import (
    add_legend,
    draw_on_log,
    is_wide,
    key_of,
    label_left,
    make_row,
    shortened,
    styled,
)
from wildmerge.reporting.tables.grids import SMALLEST
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.rows import GAIN, LOSS


def distances(tables: Tables) -> pd.DataFrame:
    """Return the merged models whose gain and distance to the base are known, if they are several."""
    models = tables.models[tables.models["kind"] == "merge"]
    known = models.dropna(subset=["update_norm", "delta_points"])
    return known if len(known) >= SMALLEST else known.iloc[:0]


@styled
def distance_figure(tables: Tables) -> Figure:
    """Gain over the base against the L2 norm of the update, a point a merged model."""
    models = distances(tables)
    bases = list(models["base"].unique())
    figure, panels = make_row(bases, height=1.8)
    for axes, base in zip(panels, bases, strict=True):
        of_base = models[models["base"] == base]
        axes.axhline(0, color=BASE_COLOUR, linewidth=0.8, zorder=1.5)
        for method in sorted(of_base["method"].unique(), key=method_order):
            points, drawn = of_base[of_base["method"] == method], look(method)
            decided = points["delta_verdict"].isin([GAIN, LOSS])
            style: dict[str, Any] = {"marker": drawn.marker, "edgecolors": drawn.colour}
            style |= {"s": 12, "linewidths": 0.7, "gid": key_of(drawn.label)}
            for chosen, face in ((decided, drawn.colour), (~decided, "white")):
                axes.scatter(
                    points["update_norm"][chosen],
                    points["delta_points"][chosen],
                    color=face,
                    **style,
                )
            axes.scatter([], [], color=drawn.colour, label=drawn.label, **style)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        if is_wide(models["update_norm"]):
            draw_on_log(axes, "x")
        axes.set_title(shortened(base, 24), loc="left")
        axes.set_xlabel("L2 norm of the update")
    label_left(panels, "gain over the base (points)")
    add_legend(figure)
    return figure


def beside(tables: Tables) -> pd.DataFrame:
    """Return the cells of Tables 1 to 3 that are published and ours, without averages."""
    cells = tables.published_comparison
    cells = cells[~cells["is_average"].astype(bool)]
    return cells.dropna(subset=["ours_delta_points", "published_delta_points"])


@styled
def published_figure(tables: Tables) -> Figure:
    """Our mean difference to the reference against the published one, a point a cell of Tables 1-3."""
    cells = beside(tables)
    bases = list(cells["base"].unique())
    both = cells[["ours_delta_points", "published_delta_points"]]
    ends = [min(0.0, both.min().min()), max(0.0, both.max().max())]
    figure, panels = make_row(bases)
    for axes, base in zip(panels, bases, strict=True):
        of_base = cells[cells["base"] == base]
        axes.plot(ends, ends, color=BASE_COLOUR, lw=0.8, ls=":", label="equal")
        for (method, variant), points in of_base.groupby(["method", "variant"], sort=False):
            drawn, main = look(method), variant == method
            axes.plot(
                points["published_delta_points"],
                points["ours_delta_points"],
                linestyle="",
                marker=drawn.marker,
                color=drawn.colour,
                markerfacecolor=drawn.colour if main else "white",
                label=variant_label(variant, method),
                gid=key_of(variant_label(variant, method)),
            )
        axes.set_title(shortened(base, 24), loc="left")
        axes.set_xlabel("published (points)")
    label_left(panels, "ours (points)")
    add_legend(figure)
    return figure
