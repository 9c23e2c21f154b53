"""One result file, read and checked: is it that model's, that benchmark's, and what was answered.

A result belongs to (recipe id, evaluation id, metric). A file that says otherwise, or that lacks
something, is refused by name; it is never taken for another.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.scoring.items import AGAIN, Values, read_values


@dataclass(frozen=True)
class Answers:
    """One model's answers to one benchmark."""

    score: float  # the mean value
    stderr: float
    chance: float  # the score of a random choice; NaN where that means nothing
    values: Values = field(repr=False)  # (items,), int8 where all are 0 or 1, else float64
    documents: str = field(repr=False)  # digest of the items as asked, in their order
    remarks: tuple[str, ...] = ()

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.values)


def read_answers(record: dict[str, Any], path: Path, answers: Path, metric: str) -> Answers:
    """Return what a checked result holds of one metric.

    Args:
        record: content of the result file.
        path: of the result file.
        answers: path of the answers that belong to it.
        metric: which one.

    Raises:
        Refusal: unusable content, by the file's name.
    """
    try:
        measured, fallback = record["metrics"][metric], record["scored_by"]["fallback"]
        score = float(measured["score"])
        return Answers(
            score=score,
            stderr=float(measured["stderr"]),
            chance=math.nan if record["chance"] is None else float(record["chance"]),
            values=read_values(answers, metric, record["n"], score),
            documents=str(record["documents"]),
            remarks=(
                *record.get("remarks", ()),
                *([f"scored by {record['scored_by']['backend']}: {fallback}"] if fallback else []),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{path}: lacks {error}; {AGAIN}") from error
