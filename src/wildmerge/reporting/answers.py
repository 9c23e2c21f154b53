"""One result file, read and checked: is it that model's, that benchmark's, and what was answered.

A result belongs to (recipe id, evaluation id, metric). A file that says otherwise, or that lacks
something, is refused by name; it is never taken for another.
"""

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wildmerge.errors import Refusal
from wildmerge.scoring.result import AGAIN


@dataclass(frozen=True)
class Answers:
    """One model's answers to one benchmark."""

    score: float  # the mean value
    stderr: float
    chance: float  # the score of a random choice; NaN where that means nothing
    values: NDArray[Any] = field(repr=False)  # (items,), int8 where all are 0 or 1, else float64
    documents: str = field(repr=False)  # digest of the items as asked, in their order
    remarks: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.values)


def read_answers(record: dict[str, Any], path: Path, metric: str) -> Answers:
    """Return what a checked result file holds of one metric; raises Refusal for unusable content."""
    try:
        measured, hashes = record["metrics"][metric], record["items"]["doc_hash"]
        values = _compact(np.asarray(measured["values"], dtype=np.float64))
        if not len(values) == len(hashes) == record["n"] or not np.isfinite(values).all():
            raise ValueError(f"{record['n']} finite values and document hashes")
        asked = "\n".join([str(record["documents"]), *hashes])
        fallback = record["scored_by"]["fallback"]
        return Answers(
            score=float(measured["score"]),
            stderr=float(measured["stderr"]),
            chance=math.nan if record["chance"] is None else float(record["chance"]),
            values=values,
            documents=hashlib.sha256(asked.encode()).hexdigest(),
            remarks=(
                *record.get("remarks", ()),
                *([f"scored by {record['scored_by']['backend']}: {fallback}"] if fallback else []),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{path}: lacks {error}; {AGAIN}") from error


def _compact(values: NDArray[np.float64]) -> NDArray[Any]:
    """Return 0/1 values in an eighth of the memory: a study may hold 100 million of them."""
    return values.astype(np.int8) if np.isin(values, (0, 1)).all() else values
