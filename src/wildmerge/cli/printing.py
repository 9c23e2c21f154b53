"""What sub-commands share: telling an inspection, writing rows as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from wildmerge.errors import Refusal


def tell(found, out: Path | None) -> None:  # noqa: ANN001 - an Inspection, imported late
    """Print an inspection and write its tables; refuse when an expert does not merge."""
    from wildmerge.merging.inspection import render

    print(render(found))
    if out:
        write_csv(out, found.rows)
        write_csv(out.with_suffix(".cosines.csv"), found.matrix())
    refused = [row["refusal"] for row in found.rows if row["merges"] == "no"]
    if refused:
        raise Refusal(refused[0])


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows of one kind as a CSV file."""
    from wildmerge.storage.files import write_atomically

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["expert"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
