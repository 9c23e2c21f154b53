"""What a model answered on a benchmark, wherever that was written: for comparing two models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildmerge.errors import Refusal, unknown
from wildmerge.scoring.conditions import Conditions
from wildmerge.scoring.items import clusters_of


@dataclass(frozen=True)
class Answered:
    """One model's answers to one benchmark, items in the order asked.

    Attributes:
        metric: which one.
        model: the recipe's id, or the digest of the model's files; "" where the files do not say it.
        evaluation: the evaluation's id; "" where lm-eval scored the model.
        conditions: under which they were computed.
        doc_hash: the first 16 digits of lm-eval's hash of each document; "" where there is none.
        question: 16 hex digits, the same for items that ask one question.
        values: each item's value, (items,).
    """

    metric: str
    model: str
    evaluation: str
    conditions: Conditions
    doc_hash: list[str]
    question: list[str]
    values: NDArray[np.float64]

    @property
    def score(self) -> float:
        """The mean value."""
        return float(self.values.mean())

    def clusters(self) -> NDArray[np.int64] | None:
        """Return which items ask one question, see `items.clusters_of`."""
        return clusters_of(self.question)


def chosen(metric: str | None, known: Sequence[str], path: Path) -> str:
    """Return the metric that was asked for, else acc, else the first.

    Raises:
        Refusal: there is none of this name, or none at all.
    """
    if not known:
        raise Refusal(f"{path}: no metrics; score the model again")
    if metric is None:
        return "acc" if "acc" in known else known[0]
    if metric not in known:
        raise Refusal(f"{path}: {unknown('metric', metric, known)}")
    return metric


def joined(parts: Sequence[Answered]) -> Answered | None:
    """Return the answers to several tasks as one benchmark's; None where their metrics differ.

    Conditions are those that all tasks share, but their versions, which are not the group's.
    """
    if len({part.metric for part in parts}) > 1:
        return None
    shared = set.intersection(*({*part.conditions.items()} for part in parts))
    return Answered(
        metric=parts[0].metric,
        model=parts[0].model,
        evaluation=parts[0].evaluation,
        conditions={name: value for name, value in shared if name != "task_version"},
        doc_hash=[digest for part in parts for digest in part.doc_hash],
        question=[digest for part in parts for digest in part.question],
        values=np.concatenate([part.values for part in parts]),
    )
