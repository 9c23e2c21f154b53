"""The study's heat maps: what each expert learnt, and how alike the experts are."""

import math
from collections.abc import Callable

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.reporting.drawing import make_panels, styled
from wildmerge.reporting.printing import fixed
from wildmerge.reporting.tables import Tables
from wildmerge.statistics.rows import GAIN, LOSS

SOFT = "#777777"  # numbers within noise


@styled
def expert_figure(tables: Tables) -> Figure:
    """Each expert's gain over its base on each benchmark, in points; noise is printed in grey."""
    experts, bases = tables.experts, list(tables.experts["base"].unique())
    labels = list(experts["label"].unique())
    limit = max(1.0, experts["delta_points"].abs().max())
    count = experts.groupby("base")["expert"].nunique().max()

    def draw(axes: Axes, base: str) -> None:
        of_base = experts[experts["base"] == base]
        cells = of_base.pivot(index="expert", columns="label").loc[of_base["expert"].unique()]
        gains = cells["delta_points"].reindex(columns=labels)
        verdicts = cells["delta_verdict"].reindex(columns=labels)
        _heat_map(axes, gains, limit, 1, "+")
        noise = ~verdicts.isin([GAIN, LOSS]).to_numpy()
        for text in axes.texts:  # one in the middle of each cell that is known
            column, row = map(int, text.get_position())
            if noise[row, column]:
                text.set_color(SOFT)

    columns = 1 if len(labels) > 8 else min(2, len(bases))
    width, height = 1.6 + 0.55 * len(labels), 1.4 + 0.27 * count
    return _panels(bases, columns, (width, height), draw, "gain over the base (points)")


@styled
def cosine_figure(tables: Tables) -> Figure:
    """The cosine between the task vectors of every two experts, a panel a base."""
    cosines, bases = tables.cosines, list(tables.cosines["base"].unique())
    names = {base: _experts_of(cosines[cosines["base"] == base]) for base in bases}
    limit = max(0.1, cosines["cosine"].abs().max())
    side = 1.2 + 0.36 * (max(map(len, names.values())) - 1)

    def draw(axes: Axes, base: str) -> None:
        pairs = cosines[cosines["base"] == base].pivot(
            index="expert", columns="other", values="cosine"
        )
        _heat_map(axes, pairs.loc[names[base][1:], names[base][:-1]], limit, 2)

    columns = min(2, len(bases))
    return _panels(bases, columns, (side + 0.6, side), draw, "cosine of task vectors")


def _panels(
    bases: list[str],
    columns: int,
    size: tuple[float, float],
    draw: Callable[[Axes, str], None],
    label: str,
) -> Figure:
    """Draw a heat map a base in panels of this size (inches), with one colour bar for all."""
    figure, panels = make_panels(math.ceil(len(bases) / columns), columns, *size)
    for axes in panels.flat[len(bases) :]:
        axes.set_visible(False)
    for axes, base in zip(panels.flat, bases, strict=False):
        draw(axes, base)
        axes.set_title(base, loc="left")
    colours = panels.flat[0].collections[0]
    figure.colorbar(colours, ax=panels, label=label, shrink=0.8, pad=0.02)
    return figure


def _heat_map(axes: Axes, cells: pd.DataFrame, limit: float, digits: int, sign: str = "-") -> None:
    """Draw one heat map with its numbers; blue is above zero, red below, an empty cell is unknown."""
    texts = cells.map(fixed, digits=digits, sign=sign)
    colours = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "cbar": False}
    sns.heatmap(cells, ax=axes, annot=texts, fmt="", annot_kws={"size": 7}, **colours)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.tick_params(axis="y", rotation=0)
    for text in axes.get_xticklabels():
        text.set(rotation=35, ha="right", rotation_mode="anchor")


def _experts_of(pairs: pd.DataFrame) -> list[str]:
    """Return the experts of one base in the order of its pairs."""
    return list(dict.fromkeys([*pairs["other"], *pairs["expert"]]))
