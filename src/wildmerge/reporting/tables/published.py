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
from wildmerge.reporting.printing import UNKNOWN, fixed, markdown
from wildmerge.reporting.tables.paper_tables import AVERAGE

CELL = ["table", "reference", "base", "is_average", "method", "n"]
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
DIFFERENCE = "difference"
WORDS = {  # what a reader calls these numbers
    "reference_accuracy_pct": "reference",
    "pct_subsets_above_reference": "share",
    "delta_points": DIFFERENCE,
}
COLUMNS = [
    *("table", "reference", "base", "is_average", "method", "variant", "n"),
    *("subsets", "subsets_planned"),
    *(f"{who}_{number}" for number in PRINTED for who in ("published", "ours")),
    *("difference_points", "mean_of_printed_rows", "average_differs_in"),
]


def read_published(path: Path) -> pd.DataFrame:
    """Read published tables under our names.

    Raises:
        Refusal: the file or a column is missing, or a cell stands there twice.
    """
    try:
        frame = pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise Refusal(f"{path}: no readable CSV of published numbers ({error})") from None
    theirs = {ours: name for name, ours in OUR_NAMES.items()}
    for column in [*CELL, *PRINTED]:
        name = theirs.get(column, column)
        if name not in frame and column != "is_average":
            raise Refusal(f"{path}: column {name} is missing; published numbers need it")
    frame = frame.rename(columns=OUR_NAMES)
    frame["is_average"] = frame["base"] == AVERAGE
    twice = frame[frame.duplicated(CELL)]
    if len(twice):
        cell = ", ".join(f"{theirs.get(c, c)} {twice[c].iat[0]}" for c in CELL if c != "is_average")
        raise Refusal(f"{path}: a cell stands there twice ({cell}); remove one")
    return frame


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
    keys = [key for key in CELL if key not in {"base", "is_average"}]
    is_average = published["is_average"]
    means = published[~is_average].groupby(keys)[list(PRINTED)].mean().reset_index()
    means = published[keys].merge(means, on=keys, how="left", validate="many_to_one")
    means = means.set_index(published.index)
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
    if _bases(mine) != _bases(published):
        mine = mine[~mine["is_average"].astype(bool)]
    numbers = {name: f"ours_{name}" for name in PRINTED}
    counts = ["subsets", "subsets_planned"]
    mine = mine[[*CELL, "variant", *counts, *PRINTED]].rename(columns=numbers)
    theirs = check_averages(published).drop(columns=counts, errors="ignore")
    theirs = theirs.rename(columns={name: f"published_{name}" for name in PRINTED})
    both = theirs.merge(mine, on=CELL, validate="one_to_many")
    both["difference_points"] = both["ours_delta_points"] - both["published_delta_points"]
    return both[COLUMNS]


def _bases(frame: pd.DataFrame) -> set[str]:
    return set(frame.loc[~frame["is_average"].astype(bool), "base"])


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
        keys = ["is_average", "base", "method", "variant"]
        for (_, base, method, variant), line in block.groupby(keys, sort=False):
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
