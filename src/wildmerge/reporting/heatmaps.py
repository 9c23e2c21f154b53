"""The study's heat maps: what each expert learnt, and how alike the experts are."""

import math
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wildmerge.reporting.drawing import make_panels, styled
from wildmerge.reporting.tables import Tables
from wildmerge.statistics.estimates import within_noise


@styled
def expert_figure(tables: Tables) -> Figure:
    """Each expert's gain over its base on each benchmark, in points; noise is printed in grey."""
    experts, bases = tables.experts, list(tables.experts["base"].unique())
    labels = experts.drop_duplicates("task").set_index("task")["label"]
    limit = max(1.0, experts["gain_points"].abs().max())
    count = experts.groupby("base")["expert"].nunique().max()
    width = 1.6 + 0.55 * len(labels)
    columns = 1 if len(labels) > 8 else min(2, len(bases))
    rows = math.ceil(len(bases) / columns)
    figure, panels = make_panels(rows, columns, width=width, height=1.4 + 0.27 * count)
    for axes in panels.flat[len(bases) :]:
        axes.set_visible(False)
    for axes, base in zip(panels.flat, bases, strict=False):
        of_base = experts[experts["base"] == base]
        cells = of_base.pivot(index="expert", columns="task").loc[of_base["expert"].unique()]
        gains = cells["gain_points"][labels.index]
        errors = cells["gain_stderr_points"][labels.index]
        image = axes.imshow(gains, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        for (row, column), gain in np.ndenumerate(gains.to_numpy()):
            noise = within_noise(gain, errors.iat[row, column])
            colour = "#777777" if noise else "white" if abs(gain) > 0.65 * limit else "black"
            axes.text(
                column, row, f"{gain:+.1f}", ha="center", va="center", color=colour, fontsize=7
            )
        _finish(axes, labels, gains.index, base)
    figure.colorbar(image, ax=panels, label="gain over the base (points)", shrink=0.8, pad=0.02)
    return figure


@styled
def cosine_figure(tables: Tables) -> Figure:
    """The cosine between the task vectors of every two experts, a panel a base."""
    cosines, bases = tables.cosines, list(tables.cosines["base"].unique())
    names = {base: _experts_of(cosines[cosines["base"] == base]) for base in bases}
    limit = max(0.1, cosines["cosine"].abs().max())
    side = 1.2 + 0.36 * (max(map(len, names.values())) - 1)
    columns = min(2, len(bases))
    figure, panels = make_panels(math.ceil(len(bases) / columns), columns, side + 0.6, side)
    for axes in panels.flat[len(bases) :]:
        axes.set_visible(False)
    for axes, base in zip(panels.flat, bases, strict=False):
        pairs = cosines[cosines["base"] == base].pivot(
            index="expert", columns="other", values="cosine"
        )
        pairs = pairs.loc[names[base][1:], names[base][:-1]]
        image = axes.imshow(pairs, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
        for (row, column), cosine in np.ndenumerate(pairs.to_numpy()):
            if not math.isnan(cosine):
                colour = "white" if abs(cosine) > 0.65 * limit else "black"
                axes.text(
                    *(column, row, f"{round(cosine, 2) + 0:.2f}"),
                    ha="center",
                    va="center",
                    color=colour,
                    size=6.5,
                )
        _finish(axes, pairs.columns, pairs.index, base)
    figure.colorbar(image, ax=panels, label="cosine of task vectors", shrink=0.8, pad=0.02)
    return figure


def _experts_of(pairs: pd.DataFrame) -> list[str]:
    """Return the experts of one base in the order of its pairs."""
    return list(dict.fromkeys([*pairs["other"], *pairs["expert"]]))


def _finish(axes: Axes, columns: Any, rows: Any, title: str) -> None:
    """Give a heat map the names of its columns and rows, and no lines."""
    axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.set_title(title, loc="left")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    sns.despine(ax=axes, left=True, bottom=True)
