"""Models of any source compared with a reference: which benchmarks they share, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from wildmerge.errors import Refusal
from wildmerge.reporting.printing import fixed, signed
from wildmerge.reporting.story.sentences import beyond
from wildmerge.scoring.answered import Answered
from wildmerge.scoring.conditions import ASKED, again, not_said, unlike
from wildmerge.scoring.reading import Key, read_model
from wildmerge.statistics.of_pairs import compare_pairs
from wildmerge.statistics.rows import GAIN, LOSS

Models = Mapping[str, Mapping[Key, Answered]]


def compare_results(places: list[Path], metric: str | None) -> tuple[pd.DataFrame, list[str]]:
    """Compare the models at some places with the first one.

    Args:
        places: see `scoring.reading.read_model`.
        metric: likewise.

    Returns:
        The comparisons, see `statistics.of_pairs`, and remarks: benchmarks that not all models have, and
        conditions that files do not say.

    Raises:
        Refusal: nothing to compare, or models that answered other items or under other conditions,
            such as the backend. One model scored again under others is compared.
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
    remarks = [*_left_out(models, shared), *_not_said(models, shared)]
    return compare_pairs(values, clusters, _again(models, shared)), remarks


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
        _require_same_conditions(label, first, name, pair=(reference, each))
        if len(each.doc_hash) != len(reference.doc_hash):
            raise Refusal(
                f"{label}: {first} has {len(reference.doc_hash)} items and {name} "
                f"{len(each.doc_hash)}; score both with the same limit"
            )
        _require_same_items(label, first, name, pairs=(reference.doc_hash, each.doc_hash))


def _require_same_conditions(
    label: str, first: str, name: str, *, pair: tuple[Answered, Answered]
) -> None:
    """Refuse two models under other conditions, or one model that was asked something else."""
    one, other = pair
    differing = unlike(one.conditions, other.conditions)
    by_id = bool(one.evaluation and other.evaluation)
    if one.evaluation == other.evaluation if by_id else not differing:
        return
    if _is_scored_again(one, other) and differing:
        return
    said = [f"{each} {one.conditions[each]} and {other.conditions[each]}" for each in differing]
    raise Refusal(
        f"{label}: {first} and {name} were scored with other settings or versions "
        f"({', '.join(said) or f'{one.evaluation} and {other.evaluation}'}); score both alike"
    )


def _is_scored_again(one: Answered, other: Answered) -> bool:
    """Say whether these are one model's answers to the same, however computed."""
    differing = unlike(one.conditions, other.conditions)
    return bool(one.model) and one.model == other.model and not {*differing} & {*ASKED}


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


def _not_said(models: Models, shared: Mapping[str, Mapping[str, Key]]) -> list[str]:
    """Name the conditions that would have to be known of models scored by different programs."""
    lacking: dict[str, set[str]] = {name: set() for name in models}
    for of in shared.values():
        answers = {name: models[name][key] for name, key in of.items()}
        ids = {each.evaluation for each in answers.values()}
        if len(ids) == 1 and "" not in ids:
            continue
        for name, each in answers.items():
            lacking[name] |= {*not_said(each.conditions)}
    return [
        f"{name}: its files do not say {', '.join(sorted(unknown))}; compare only what was scored alike"
        for name, unknown in lacking.items()
        if unknown
    ]


def _again(models: Models, shared: Mapping[str, Mapping[str, Key]]) -> dict[str, str]:
    """Return, by name, how the reference itself was scored for a second time."""
    reference, *others = models
    found = {}
    for name in others:
        pairs = [
            (models[reference][of[reference]], models[name][of[name]]) for of in shared.values()
        ]
        if all(_is_scored_again(*pair) for pair in pairs):
            words = [again(one.conditions, other.conditions) for one, other in pairs]
            found[name] = " and ".join(dict.fromkeys(words))
    return found


# --- what is printed ------------------------------------------------------------------------------


def render(compared: pd.DataFrame) -> str:
    """Return a sentence a model, and a table of its benchmarks."""
    return "\n\n".join(
        f"{_sentence(model)}\n\n{_table(model)}"
        for _, model in compared.groupby("model", sort=False)
    )


def _sentence(rows: pd.DataFrame) -> str:
    mean = rows[rows["label"] == ""].iloc[0]
    if mean.rescored:
        return f"{mean.model} against {mean.reference_name}: one model. {rescored(mean)}"
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


def rescored(row: Any) -> str:
    """Return "Scored again by hf, the model answers 2.2 % of the items differently (10 of 455; ..."."""
    text = f"Scored again {row.rescored}, the model answers "
    net = f"net {signed(row.estimate_points, 1)} points"
    of_all = f"of {row.differing_of:,.0f}"
    if not row.gained + row.lost:
        most = fixed(row.differing_high_pct, 1)
        return text + f"no item differently (0 {of_all}; up to {most} % cannot be excluded)"
    if row.differing_of:
        share = fixed(row.differing_pct, 1)
        text += f"{share} % of the items differently ({row.differing:.0f} {of_all}; {net}): "
    else:  # an answer that is a number always differs in its last digits
        text += f"with other numbers ({net}): "
    text += (
        f"differences under {fixed(row.floor_points, 1)} points are within what rescoring changes"
    )
    if row.verdict in {GAIN, LOSS}:
        text += "; the net difference is beyond noise, so more than rounding has changed"
    return text


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
