"""Our Tables 1-3 beside published ones, cell by cell, and the published averages checked.

Published numbers are a CSV with a row a cell: table, reference, base_model, method, n_merged, n_subsets,
reference_accuracy_pct, pct_subsets_above_reference, mean_accuracy_delta_points; rows of base `average`
are printed averages over the bases. Bases and methods are matched by name.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.paper_tables import AVERAGE, UNKNOWN
from wildmerge.reporting.printing import fixed, markdown

CELL = ["table", "reference", "base", "method", "n"]
OUR_NAMES = {  # column of a published CSV -> the name of that column in all tables of a study
    "base_model": "base",
    "n_merged": "n",
    "n_subsets": "subsets",
    "mean_accuracy_delta_points": "delta_points",
}
PRINTED = {  # number in a cell -> the place to which it is printed
    "reference_accuracy_pct": 0.1,
    "pct_subsets_above_reference": 1.0,
    "delta_points": 0.01,
}
COLUMNS = [
    *CELL,
    "variant",
    "subsets",
    *(f"{who}_{number}" for number in PRINTED for who in ("published", "ours")),
    "difference_points",
    "mean_of_printed_rows",
    "average_differs_in",
]
DIFFERENCE = "difference"
WORDS = {  # what a reader calls these numbers
    "reference_accuracy_pct": "reference",
    "pct_subsets_above_reference": "share",
    "delta_points": DIFFERENCE,
}


def read_published(path: Path) -> pd.DataFrame:
    """Read published tables under our names; raises Refusal where the file or a column is missing."""
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise Refusal(f"{path}: no readable CSV of published numbers ({error})") from None
    theirs = {ours: name for name, ours in OUR_NAMES.items()}
    for column in [*CELL, *PRINTED]:
        if (name := theirs.get(column, column)) not in frame:
            raise Refusal(f"{path}: column {name} is missing; published numbers need it")
    return frame.rename(columns=OUR_NAMES)


def check_averages(published: pd.DataFrame) -> pd.DataFrame:
    """Compare every printed average with the mean of the printed rows above it.

    Args:
        published: as `read_published` returns it.

    Returns:
        The same cells with `mean_of_printed_rows`, the mean difference in points that the rows give
        (unknown in rows that are no averages), and `average_differs_in`, the words for those numbers
        of an average that are farther from their rows' mean than rounding explains: each row and the
        average itself may be off by half of their last place.
    """
    keys = [key for key in CELL if key != "base"]
    of_bases = published[published["base"] != AVERAGE]
    means = of_bases.groupby(keys)[list(PRINTED)].mean().reset_index()
    means = published[keys].merge(means, on=keys, how="left").set_index(published.index)
    is_average = published["base"] == AVERAGE
    beyond = {
        WORDS[number]: is_average & ((published[number] - means[number]).abs() > place + 1e-9)
        for number, place in PRINTED.items()
    }
    return published.assign(
        mean_of_printed_rows=means["delta_points"].where(is_average),
        average_differs_in=[
            " and ".join(word for word, wrong in beyond.items() if wrong[row])
            for row in published.index
        ],
    )


def compare(published: pd.DataFrame, ours: list[pd.DataFrame]) -> pd.DataFrame:
    """Set our cells beside the published ones.

    Args:
        published: as `read_published` returns it.
        ours: our Tables 1-3, as `paper_tables.paper_table` makes them.

    Returns:
        A row a published cell and variant of ours of that method. Our average stands beside the
        published one only when it is over the same bases. Without a shared cell there are no rows.
    """
    mine = pd.concat([frame for frame in ours if len(frame)] or ours, ignore_index=True)
    bases = set(published["base"])
    if set(mine["base"]) != bases:
        mine = mine[mine["base"] != AVERAGE]
    numbers = {name: f"ours_{name}" for name in PRINTED}
    mine = mine[[*CELL, "variant", "subsets", *PRINTED]].rename(columns=numbers)
    theirs = check_averages(published).drop(columns="subsets", errors="ignore")
    theirs = theirs.rename(columns={name: f"published_{name}" for name in PRINTED})
    both = theirs.merge(mine, on=CELL)
    both["difference_points"] = both["ours_delta_points"] - both["published_delta_points"]
    return both[COLUMNS]


def to_markdown(frame: pd.DataFrame) -> str:
    """Return the comparison as Markdown: a table a block, cells `published / ours`, in points."""
    if frame.empty:
        return "No cell of published tables to compare with.\n"
    lines = [
        "Mean difference to the reference in accuracy points: published / ours.",
        "A printed average that is not the mean of the printed rows above it is marked †, "
        "followed by that mean.",
        "",
    ]
    for (table, reference), block in frame.groupby(["table", "reference"], sort=False):
        sizes = sorted(block["n"].unique())
        lines.append(f"**Table {table}**, against the {str(reference).replace('_', ' ')}")
        rows = []
        keys = ["base", "method", "variant"]
        for (base, method, variant), line in block.groupby(keys, sort=False):
            cells = {row.n: _cell(row) for row in line.itertuples()}
            texts = [cells.get(n, UNKNOWN) for n in sizes]
            rows.append([base, variant_label(variant, method), *texts])
        headers = ["Base", "Method", *(f"n = {n}" for n in sizes)]
        lines += ["", markdown(headers, rows), ""]
    return "\n".join(lines)


def _cell(row: Any) -> str:
    published, ours = (
        fixed(value, 2, "+") for value in (row.published_delta_points, row.ours_delta_points)
    )
    if DIFFERENCE in row.average_differs_in:
        published += f"† ({fixed(row.mean_of_printed_rows, 2, '+')})"
    return f"{published} / {ours}"
