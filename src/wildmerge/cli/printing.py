"""What commands share: printing an inspection, writing rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.errors import Refusal

if TYPE_CHECKING:
    from wildmerge.merging.inspection import Inspection


def report_inspection(found: Inspection, out: Path | None) -> None:
    """Print an inspection and write its tables; refuse when an expert does not merge."""
    from wildmerge.merging.inspection import render

    print(render(found))
    if out:
        write_csv(out, found.rows)
        # no base of a study has a plus in its name, so this is the table of none
        write_csv(out.with_name(f"{out.stem}+cosines.csv"), found.pairs())
    refused = [row["refusal"] for row in found.rows if row["merges"] == "no"]
    if refused:
        raise Refusal(refused[0])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of one kind as a CSV file."""
    from wildmerge.storage.files import write_atomically

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["expert"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
