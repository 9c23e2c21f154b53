"""Models of any source compared with a reference: which benchmarks they share, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from wildmerge.errors import Refusal
from wildmerge.reporting.printing import fixed, signed
from wildmerge.reporting.sentences import beyond
from wildmerge.scoring.answered import Answered
from wildmerge.scoring.reading import Key, read_model
from wildmerge.statistics.of_pairs import compare_pairs

Models = Mapping[str, Mapping[Key, Answered]]


def compare_results(places: list[Path], metric: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Compare the models at some places with the first one.

    Args:
        places: see `scoring.reading.read_model`.
        metric: likewise.

    Returns:
        The comparisons, see `statistics.of_pairs`, and remarks on benchmarks that not all models have.

    Raises:
        Refusal: nothing to compare, or models that answered other items or were asked in another way.
    """
    names = [str(place) for place in places]
    if len(names) < 2:
        raise Refusal("name two models at least; the first is the reference")
    if twice := [name for name in names if names.count(name) > 1]:
        raise Refusal(f"{twice[0]}: named twice; a model differs from itself in nothing")
    models = {name: read_model(place, metric) for name, place in zip(names, places, strict=True)}
    shared = _shared(models)
    values = {
        name: {label: answers[of[name]].values for label, of in shared.items()}
        for name, answers in models.items()
    }
    reference = models[names[0]]
    clusters = {label: reference[of[names[0]]].clusters() for label, of in shared.items()}
    return compare_pairs(values, clusters), _left_out(models, shared)


# --- which benchmarks -----------------------------------------------------------------------------


def _shared(models: Models) -> dict[str, dict[str, Key]]:
    """Return, by printed name, each model's key of a benchmark that all have."""
    found: dict[str, dict[str, Key]] = {}
    tasks = sorted(set.intersection(*({key.task for key in m} for m in models.values())))
    for task in tasks:
        keys = {name: [key for key in m if key.task == task] for name, m in models.items()}
        if all(len(each) == 1 for each in keys.values()):
            found[task] = {name: each[0] for name, each in keys.items()}
            continue
        common = set.intersection(*(set(each) for each in keys.values()))
        for key in sorted(common):
            found[f"{task} ({key.evaluation})"] = dict.fromkeys(models, key)
    if not found:
        listed = "; ".join(
            f"{n}: {', '.join(sorted({k.task for k in m}))}" for n, m in models.items()
        )
        raise Refusal(f"no benchmark that all models have ({listed}); score them on the same")
    for label, of in found.items():
        _require_alike(label, {name: models[name][key] for name, key in of.items()})
    return found


def _require_alike(label: str, answers: Mapping[str, Answered]) -> None:
    """Refuse answers to other items, to items asked in another way, or of other metrics."""
    (first, reference), *others = answers.items()
    for name, each in others:
        if each.metric != reference.metric:
            raise Refusal(
                f"{label}: {first} has {reference.metric} and {name} {each.metric}; name one as --metric"
            )
        if each.evaluation and reference.evaluation and each.evaluation != reference.evaluation:
            raise Refusal(
                f"{label}: {first} and {name} were scored with other settings or versions "
                f"({reference.evaluation}, {each.evaluation}); score both alike"
            )
        if len(each.doc_hash) != len(reference.doc_hash):
            raise Refusal(
                f"{label}: {first} has {len(reference.doc_hash)} items and {name} "
                f"{len(each.doc_hash)}; score both with the same limit"
            )
        _require_same_items(label, first, name, pairs=(reference.doc_hash, each.doc_hash))


def _require_same_items(
    label: str, first: str, name: str, *, pairs: tuple[list[str], list[str]]
) -> None:
    for number, (one, other) in enumerate(zip(*pairs, strict=True)):
        if not (one and other):
            raise Refusal(f"{label}: item {number} has no doc_hash; score it with a newer lm-eval")
        if one != other:
            raise Refusal(
                f"{label}: item {number} of {first} is document {one}, of {name} {other}; they "
                "answered different items, so they cannot be compared"
            )


def _left_out(models: Models, shared: Mapping[str, Mapping[str, Key]]) -> list[str]:
    """Name the benchmarks that some models have and others lack."""
    remarks = []
    for name, answers in models.items():
        used = {of[name] for of in shared.values()}
        if alone := sorted({key.task for key in answers if key not in used}):
            remarks.append(f"{name}: left out, as not all models have it: {', '.join(alone)}")
    return remarks


# --- what is printed ------------------------------------------------------------------------------


def render(compared: pd.DataFrame) -> str:
    """Return a sentence a model, and a table of its benchmarks."""
    return "\n\n".join(
        f"{_sentence(model)}\n\n{_table(model)}"
        for _, model in compared.groupby("model", sort=False)
    )


def _sentence(rows: pd.DataFrame) -> str:
    mean = rows[rows["label"] == ""].iloc[0]
    count = len(rows) - 1
    where = (
        "in the mean of " + f"{count} benchmarks" if count > 1 else f"on {rows['label'].iloc[0]}"
    )
    return f"{mean.model} against {mean.reference_name}, {where}: {outcome(mean)}"


def outcome(row: Any) -> str:
    """Return "+1.8 points (95 % interval +0.4 to +3.2; 61 items gained, 41 lost): a gain"."""
    if not row.gained + row.lost:
        return (
            "no item is answered differently; a difference up to "
            f"{fixed(row.high_points, 1)} points cannot be excluded"
        )
    ends = f"{signed(row.low_points, 1)} to {signed(row.high_points, 1)}"
    return (
        f"{signed(row.estimate_points, 1)} points (95 % interval {ends}; "
        f"{row.gained:.0f} items gained, {row.lost:.0f} lost): {beyond(row)}"
    )


def _table(rows: pd.DataFrame) -> str:
    headers = ["benchmark", "items", "reference", "model", "difference", "95 % interval"]
    headers += ["gained", "lost", "McNemar p", "p (Holm)", "verdict"]
    cells = [
        [
            row.label or "mean",
            f"{row.items:.0f}",
            fixed(100 * row.reference_score, 1),
            fixed(100 * row.score, 1),
            signed(row.estimate_points, 1),
            f"{signed(row.low_points, 1)} to {signed(row.high_points, 1)}",
            f"{row.gained:.0f}",
            f"{row.lost:.0f}",
            _p(row.mcnemar_p) if row.label else "",
            _p(row.p_adjusted),
            row.verdict,
        ]
        for row in rows.itertuples()
        if row.label or len(rows) > 2
    ]
    sides = ["left", *["right"] * (len(headers) - 2), "left"]
    text: str = tabulate(cells, headers, tablefmt="simple", disable_numparse=True, colalign=sides)
    return text


def _p(value: float) -> str:
    return "<0.0001" if value < 0.0001 else fixed(value, 4)
