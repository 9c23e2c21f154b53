"""A look at a base and its experts before any merge: would they merge, and how far apart are they?

One row an expert: whether it merges and why not, its distance to the base (L2 over all shared weights)
and, found on the way, NaN or Inf. Every weight is read once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wildmerge.checkpoints.compatibility import compare
from wildmerge.checkpoints.tensors import FLOATS, Checkpoint
from wildmerge.errors import Refusal
from wildmerge.task_vectors import TaskVectors

Row = dict[str, Any]


def inspect(base: str, experts: Sequence[str]) -> list[Row]:
    """Return one row an expert: expert, merges (yes or no), distance, remarks, refusal."""
    foundation = Checkpoint(base)
    rows = []
    for expert in tqdm(experts, desc="inspecting", unit="expert", disable=None):
        row: Row = {"expert": expert, "merges": "no", "distance": "", "remarks": "", "refusal": ""}
        try:
            opened = Checkpoint(expert)
            finding = compare(foundation, {expert: opened})[0]
            if finding.refusal:
                raise Refusal(finding.refusal)
            row["distance"] = f"{_distance(foundation, opened):.6g}"
            row["remarks"] = "; ".join(finding.remarks)
            row["merges"] = "yes"
        except Refusal as refusal:
            row["refusal"] = str(refusal)
        rows.append(row)
    return rows


def render(rows: list[Row]) -> str:
    """Return the rows as an aligned table."""
    width = max(len(str(Path(row["expert"]))) for row in rows)
    lines = [f"{'expert':<{width}}  merges  distance to base  remarks"]
    for row in rows:
        what = row["refusal"] or row["remarks"]
        lines.append(f"{row['expert']:<{width}}  {row['merges']:<6}  {row['distance']:<16}  {what}")
    return "\n".join(line.rstrip() for line in lines)


def _distance(base: Checkpoint, expert: Checkpoint) -> float:
    squares = 0.0
    for name, info in base.tensors.items():
        if info.dtype in FLOATS:
            sources = [str(base.folder), str(expert.folder)]
            vectors = TaskVectors(base[name], [expert[name]], name=name, sources=sources)
            squares += sum(float(d.norm()) ** 2 for _, d in vectors.chunks())
    return math.sqrt(squares)
