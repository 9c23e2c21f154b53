"""The study's heat maps: what methods and experts gain on each benchmark, and how alike experts are."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from wildmerge.reporting.appearance import method_order, variant_label
from wildmerge.reporting.figures.drawing import COLUMN, shortened, styled
from wildmerge.reporting.printing import MINUS, fixed
from wildmerge.reporting.tables.grids import whole_curves
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.rows import GAIN, LOSS

SOFT = "#555555"  # numbers within noise
ROW = 0.17  # inches
NARROW = 0.24  # inches that a number with a decimal takes
WIDE = 0.5  # inches that a column may take
NAMES = 1.05  # inches that the names of rows may take


def on_benchmarks(tables: Tables, base: str) -> pd.DataFrame:
    """Return the gain of each variant on each benchmark, at the largest size that there is."""
    curves = whole_curves(tables.benchmark_curves)
    of_base = curves[(curves["base"] == base) & (curves["n"] > 1)].dropna(subset="delta_points")
    return of_base[of_base["n"] == of_base["n"].max()]


def of_experts(tables: Tables, base: str) -> pd.DataFrame:
    """Return the gain of each of a base's experts on each benchmark."""
    return tables.experts[tables.experts["base"] == base].dropna(subset="delta_points")


def of_pairs(tables: Tables, base: str) -> pd.DataFrame:
    """Return the cosines between the task vectors of a base's experts."""
    return tables.cosines[tables.cosines["base"] == base].dropna(subset="cosine")


@styled
def method_figure(tables: Tables, base: str) -> Figure:
    """Gain of each variant on each benchmark at the largest size, in points; noise is grey."""
    points = on_benchmarks(tables, base)
    points = points.sort_values("method", key=lambda names: names.map(method_order), kind="stable")
    names = [variant_label(*pair) for pair in zip(points["variant"], points["method"], strict=True)]
    title = f"gain over {shortened(base, 24)} at n = {points['n'].iat[0]} (points)"
    return _gain_map(points.assign(column=names), title)


@styled
def expert_figure(tables: Tables, base: str) -> Figure:
    """Each expert's gain over its base on each benchmark, in points; noise is printed in grey."""
    experts = of_experts(tables, base)
    title = f"gain over {shortened(base)} (points)"
    return _gain_map(experts.assign(column=experts["expert"]), title)


@styled
def cosine_figure(tables: Tables, base: str) -> Figure:
    """The cosine between the task vectors of every two experts."""
    pairs = of_pairs(tables, base)
    names = list(dict.fromkeys([*pairs["other"], *pairs["expert"]]))
    cells = pairs.pivot(index="expert", columns="other", values="cosine")
    cells = cells.reindex(index=names[1:], columns=names[:-1])
    limit = max(0.1, cells.abs().max().max())
    return _heat_map(cells, limit, 2, "-", f"cosines, {shortened(base)}")


def _gain_map(points: pd.DataFrame, title: str) -> Figure:
    """Draw gains, a row a benchmark and a column a variant or expert."""
    columns, labels = points["column"].unique(), points["label"].unique()
    cells = points.pivot(index="label", columns="column")
    gains = cells["delta_points"].reindex(index=labels, columns=columns)
    verdicts = cells["delta_verdict"].reindex(index=labels, columns=columns)
    limit = max(1.0, gains.abs().max().max())
    digits = 1 if (COLUMN - NAMES) / len(columns) > NARROW else 0
    figure = _heat_map(gains, limit, digits, "+", title)
    beyond = verdicts.isin([GAIN, LOSS]).to_numpy()
    for text in figure.axes[0].texts:  # one in the middle of each cell that is known
        column, row = map(int, text.get_position())
        text.set(**({"weight": "bold"} if beyond[row, column] else {"color": SOFT}))
    return figure


def _heat_map(cells: pd.DataFrame, limit: float, digits: int, sign: str, title: str) -> Figure:
    """Draw a heat map with its numbers; blue is above zero, red below, an empty cell is unknown."""
    names = [shortened(str(name), 30) for name in cells]
    height = ROW * len(cells) + 0.033 * max(len(name) for name in names) + 0.4
    figure = Figure(
        figsize=(min(COLUMN, NAMES + WIDE * cells.shape[1]), height), layout="constrained"
    )
    axes = figure.subplots()
    texts = cells.map(lambda value: fixed(value, digits, sign).replace("-", MINUS))
    colours = {"cmap": "RdBu", "vmin": -limit, "vmax": limit, "cbar": False}
    size = 5.5 if (COLUMN - NAMES) / cells.shape[1] > NARROW else 5
    sns.heatmap(cells, ax=axes, annot=texts, fmt="", annot_kws={"size": size}, **colours)
    axes.set(xlabel="", ylabel="")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=7.5, fontweight="bold")
    axes.set_yticklabels([shortened(str(name), 22) for name in cells.index], rotation=0)
    axes.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor")
    return figure
