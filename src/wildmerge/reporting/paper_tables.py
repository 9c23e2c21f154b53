"""Tables 1, 2 and 3 of the paper: how often, and by how much, merging beats a reference.

Table 1 holds the weight-space methods (and a user's own), Table 3 the subspace methods, both
against the base; Table 2 holds Task Arithmetic against the best single expert. A row is a cell, as
in the published numbers, so the two can be compared by a join; `layouts.py` prints them.

Source: arXiv 2511.21437, Tables 1-3.
"""

from typing import Any

import pandas as pd

from wildmerge.reporting.appearance import SUBSPACE, WEIGHT_SPACE, look
from wildmerge.reporting.frames import BASE, BEST_EXPERT
from wildmerge.reporting.grids import whole_curves
from wildmerge.statistics.comparisons import average_over_bases, share_above

AVERAGE = "average"
"""What the rows of means over bases are called. A base may be called so, too: `is_average` decides."""
COLUMNS = (
    *("table", "reference", "base", "is_average", "method", "variant", "n"),
    *("subsets", "subsets_planned", "reference_accuracy_pct"),
    *("pct_subsets_above_reference", "pct_low", "pct_high"),
    *("delta_points", "delta_stderr_points", "sd_points"),
)


def belongs(number: int, method: str) -> bool:
    """Say whether a method stands in the table of this number."""
    if number == 2:
        return method == "task_arithmetic"
    return look(method).family == (WEIGHT_SPACE if number == 1 else SUBSPACE)


def paper_table(number: int, curves: pd.DataFrame) -> pd.DataFrame:
    """Compute one of the paper's tables.

    Args:
        number: 1, 2 or 3.
        curves: the study's curves, as `frames.curve_tables` makes them.

    Returns:
        A row a base, variant and size, with the columns of the published numbers, a 95 % Wilson
        interval of the share and the sample standard deviation over subsets; then, for two or more
        bases, the rows of means over them. Points of a grid made at fewer sizes than its method are
        left out. Without such a method the table has no rows.
    """
    reference = BEST_EXPERT if number == 2 else BASE
    rows = [
        {"table": number, "reference": reference[0]} | _cell(point, *reference)
        for point in whole_curves(curves).to_dict("records")
        if point["n"] > 0 and belongs(number, point["method"])
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="reference_accuracy_pct")
    if frame["base"].nunique() < 2:
        return frame
    return pd.concat([frame, _averages(frame)], ignore_index=True)[list(COLUMNS)]


def _cell(point: dict[str, Any], name: str, delta: str) -> dict[str, Any]:
    """One point of a curve against one reference."""
    share, low, high = share_above(point[f"subsets_above_{name}"], point["subsets"])
    same = ("base", "method", "variant", "n", "subsets", "subsets_planned")
    return {column: point[column] for column in same} | {
        "is_average": False,
        "reference_accuracy_pct": 100 * point[f"{name}_accuracy"],
        "pct_subsets_above_reference": share,
        "pct_low": low,
        "pct_high": high,
        "delta_points": point[f"{delta}_points"],
        "delta_stderr_points": point[f"{delta}_stderr_points"],
        "sd_points": 100 * point["sd"],
    }


def _averages(frame: pd.DataFrame) -> pd.DataFrame:
    """The unweighted mean over bases of each cell; sizes that some base lacks are left out."""
    rows, bases = [], frame["base"].nunique()
    keys = ["table", "reference", "method", "variant", "n"]
    for key, cells in frame.groupby(keys, sort=False):
        if len(cells) < bases:
            continue
        delta, stderr = average_over_bases(cells["delta_points"], cells["delta_stderr_points"])
        means = cells[["reference_accuracy_pct", "pct_subsets_above_reference"]].mean()
        counts = cells[["subsets", "subsets_planned"]].min()
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"base": AVERAGE, "is_average": True, "delta_points": delta}
            | {"delta_stderr_points": stderr, **means, **counts}
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sizes(frame: pd.DataFrame) -> list[int]:
    """Return the merge sizes of a paper table, ascending; 1 stands for the single experts."""
    return sorted(int(n) for n in frame["n"].unique())
