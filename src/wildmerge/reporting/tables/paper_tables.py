"""Tables 1, 2 and 3 of the paper: how often, and by how much, merging beats a reference.

Table 1 holds the weight-space methods (and a user's own), Table 3 the subspace methods, both
against the base; Table 2 holds Task Arithmetic against the best single expert. A row is a cell, as
in the published numbers, so the two can be compared by a join; `layouts.py` prints them.

Source: arXiv 2511.21437, Tables 1-3.
"""

import math
from typing import Any

import pandas as pd

from wildmerge.reporting.appearance import SUBSPACE, WEIGHT_SPACE, look
from wildmerge.reporting.tables.frames import BASE, BEST_EXPERT, DELTA, UNBIASED
from wildmerge.reporting.tables.grids import whole_curves

AVERAGE = "average"
"""What the rows of means over bases are called. A base may be called so, too: `is_average` decides."""
COLUMNS = (
    *("table", "reference", "base", "is_average", "method", "variant", "n"),
    *("subsets", "subsets_planned", "reference_accuracy_pct"),
    *("pct_subsets_above_reference", "pct_low", "pct_high"),
    *("delta_points", "delta_stderr_points", "delta_low_points", "delta_high_points"),
    *("verdict", "sd_points"),
)
ENDS = {"points": "estimate", "stderr_points": "stderr", "low_points": "low", "high_points": "high"}
"""How the name of a column ends -> how that of a comparison begins."""


def belongs(number: int, method: str) -> bool:
    """Say whether a method stands in the table of this number."""
    if number == 2:
        return method == "task_arithmetic"
    return look(method).family == (WEIGHT_SPACE if number == 1 else SUBSPACE)


def paper_table(number: int, curves: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """Lay out one of the paper's tables.

    Args:
        number: 1, 2 or 3.
        curves: the study's curves, as `frames.curve_tables` makes them.
        compared: the study's comparisons, for the means over bases.

    Returns:
        A row a base, variant and size, with the columns of the published numbers, the 95 % interval
        of the difference and of the share, and the sample standard deviation over subsets; then, for
        two or more bases, the rows of means over them. The verdict on a difference to the best expert
        is that without the luck of choosing it. Points of a grid made at fewer sizes than its method
        are left out. Without such a method the table has no rows.
    """
    reference = BEST_EXPERT if number == 2 else BASE
    points = whole_curves(curves)
    rows = [
        _cell(point, reference)
        for point in points.to_dict("records")
        if point["n"] > 0 and belongs(number, point["method"])
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS[2:])).dropna(subset="reference_accuracy_pct")
    frame.insert(0, "table", number)
    frame.insert(1, "reference", reference)
    if frame["base"].nunique() < 2:
        return frame
    means = compared[compared["is_average"] & (compared["reference"] == reference)]
    means = _averages(frame, means)
    return pd.concat([frame, means], ignore_index=True)[list(COLUMNS)]


def _cell(point: dict[str, Any], reference: str) -> dict[str, Any]:
    """One point of a curve against one reference."""
    same = ("base", "method", "variant", "n", "subsets", "subsets_planned")
    delta, count = DELTA[reference], point["subsets"]
    above = point[f"subsets_above_{reference}"]
    cell = {column: point[column] for column in same} | {
        "is_average": False,
        "reference_accuracy_pct": 100 * point[f"{reference}_accuracy"],
        "pct_subsets_above_reference": 100 * above / count if count else math.nan,
        "sd_points": 100 * point["sd"],
        "verdict": point[f"{delta}_verdict"],
    }
    if reference == BASE:
        cell |= {"pct_low": point["share_low_pct"], "pct_high": point["share_high_pct"]}
    elif point[f"{UNBIASED}_verdict"]:
        cell["verdict"] = point[f"{UNBIASED}_verdict"]
    return cell | {f"delta_{end}": point[f"{delta}_{end}"] for end in ENDS}


def _averages(frame: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """The unweighted mean over bases of each cell; sizes that some base lacks are left out."""
    rows, bases = [], frame["base"].nunique()
    keys = ["table", "reference", "method", "variant", "n"]
    found = {(row.variant, row.n): row for row in compared.itertuples()}
    for key, cells in frame.groupby(keys, sort=False):
        variant, n = key[3], key[4]
        mean = found.get((variant if n > 1 else "", n))
        if len(cells) < bases or mean is None:
            continue
        shares = cells[["reference_accuracy_pct", "pct_subsets_above_reference"]].mean()
        counts = cells[["subsets", "subsets_planned"]].min()
        rows.append(
            dict(zip(keys, key, strict=True))
            | {"base": AVERAGE, "is_average": True, "verdict": mean.verdict, **shares, **counts}
            | {f"delta_{end}": getattr(mean, f"{column}_points") for end, column in ENDS.items()}
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sizes(frame: pd.DataFrame) -> list[int]:
    """Return the merge sizes of a paper table, ascending; 1 stands for the single experts."""
    return sorted(int(n) for n in frame["n"].unique())
