"""Single models compared: with their base, with every expert, with chance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from wildmerge.statistics.answers import BaseAnswers
from wildmerge.statistics.paired import (
    DISCORDANT,
    LEVEL,
    Estimate,
    Floats,
    cluster_sums,
    degrees,
    difference,
    half_widths,
    p_values,
)
from wildmerge.statistics.rows import Row

MODEL, PAIRED = "model", "paired"


def compare_models(answers: BaseAnswers) -> Iterator[Row]:
    """Yield the comparisons of a base's single models: with the base, the experts and chance."""
    yield from _with_chance(answers)
    if answers.base is not None:
        yield from _with_base(answers, answers.base)
    if answers.best_expert is not None:
        yield from _with_every_expert(answers, answers.best_expert)


def _with_base(answers: BaseAnswers, base: int) -> Iterator[Row]:
    """Each expert and merged model against the base."""
    name = answers.models["base"][base]
    for row in [*answers.experts, *answers.merges]:
        kind = str(answers.models["kind"][row])
        found = [d[0] for d in answers.differences([row], base)]
        yield Row(
            _keys(answers, row, reference="base", reference_name=name),
            difference(found, answers.groups),
            family=f"{kind}s of {name} against it",
            extra=items_of(found),
        )
    for label in answers.labels:
        yield from _on_benchmark(answers, base, label)


def _on_benchmark(answers: BaseAnswers, base: int, label: str) -> Iterator[Row]:
    """Each model that has a result on one benchmark against the base; a family are its benchmarks."""
    values, known = answers.values[label], answers.known[label]
    for row in np.flatnonzero(known):
        if row == base:
            continue
        found = values[row].astype(np.float64) - values[base]
        name, model = answers.models["base"][base], answers.models["recipe_id"][row]
        yield Row(
            _keys(answers, row, label=label, reference="base", reference_name=name),
            difference([found], [answers.clusters[label]]),
            family=f"benchmarks of {name}, {model}",
            extra=items_of([found]),
        )


def _with_chance(answers: BaseAnswers) -> Iterator[Row]:
    """The base against a random choice, on each benchmark where that means something."""
    bases = np.flatnonzero((answers.models["kind"] == "base").to_numpy())
    for row in bases:
        for label in answers.labels:
            chance = answers.chance[label]
            if not answers.known[label][row] or not np.isfinite(chance):
                continue
            found = answers.values[label][row].astype(np.float64) - chance
            yield Row(
                _keys(answers, row, label=label, reference="chance"),
                difference([found], [answers.clusters[label]]),
                family=f"benchmarks of {answers.models['base'][row]} against chance",
                extra={"items": len(found)},
            )


def _with_every_expert(answers: BaseAnswers, best: int) -> Iterator[Row]:
    """Each merged model against all experts at once, and against the one with the best score.

    "Beats every expert" needs no correction for choosing one: the lower end is the lowest of the
    ordinary lower ends. The upper end is the lowest of upper ends at level 1 - 0.05 / experts.
    """
    experts = answers.experts
    if not len(answers.merges):
        return
    estimates = against_each(answers, answers.merges, experts)
    for row, of_row in zip(answers.merges, estimates, strict=True):
        at_best = of_row[int(np.flatnonzero(experts == best)[0])]
        name = answers.models["experts"][best]
        keys = _keys(answers, row, reference="best_expert", reference_name=name)
        yield Row(keys, at_best, extra={"items": _count(answers)})
        lows = np.array([e.value for e in of_row]) - half_widths(of_row, LEVEL)
        highs = np.array([e.value for e in of_row]) + half_widths(
            of_row, 1 - (1 - LEVEL) / len(of_row)
        )
        ends = max(-1.0, float(lows.min())), min(1.0, float(highs.min()))
        least = min(of_row, key=lambda estimate: estimate.value)
        yield Row(
            _keys(answers, row, reference="every_expert") | {"estimator": "every expert"},
            least,
            extra={"items": _count(answers)},
            interval=(*ends, _p_of_every(of_row)),
        )


def _p_of_every(estimates: Sequence[Estimate]) -> float:
    """Return the p-value of beating, or else of not beating, every expert."""
    values, p = np.array([e.value for e in estimates]), p_values(estimates)
    if (values > 0).all():
        return float(p.max())
    return min(1.0, len(p) * float(p[values <= 0].min()))


def against_each(
    answers: BaseAnswers, rows: Sequence[int] | Any, references: Sequence[int] | Any
) -> list[list[Estimate]]:
    """Estimate the mean difference of each model to each reference.

    The same as `paired.difference` of every pair, from sums of products instead of differences: for
    thousands of models and twelve experts a matrix product a benchmark.

    Args:
        answers: of a base's models.
        rows: the models.
        references: rows of the models they are compared with.

    Returns:
        A list a model, with an estimate a reference.
    """
    count = len(answers.labels)
    shape = (len(rows), len(references))
    value, total, squares = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for label in answers.labels:
        mean, variance, of_benchmark = _moments(answers, label, rows, references)
        value += mean / count
        total += variance
        squares += variance**2 / of_benchmark
    df = np.maximum(1.0, total**2 / squares)
    return [
        [
            Estimate(float(value[i, j]), float(total[i, j]) / count**2, float(df[i, j]))
            for j in range(shape[1])
        ]
        for i in range(shape[0])
    ]


def _moments(
    answers: BaseAnswers, label: str, rows: Any, references: Any
) -> tuple[Floats, Floats, float]:
    """Return mean differences on a benchmark, their variances, (rows, references), and the df."""
    values, clusters = answers.values[label], answers.clusters[label]
    n = values.shape[1]
    ours, sizes = cluster_sums(values[rows].astype(np.float64), clusters)
    theirs, _ = cluster_sums(values[references].astype(np.float64), clusters)
    mean = (ours.sum(1)[:, None] - theirs.sum(1)) / n
    # sum over clusters of (their difference - its expectation)^2, multiplied out
    squared = (ours**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * ours @ theirs.T
    weighted = (ours @ sizes)[:, None] - theirs @ sizes
    apart = np.maximum(0.0, squared - 2 * mean * weighted + mean**2 * float(sizes @ sizes))
    drawn = len(sizes)
    spread = apart / n**2 * drawn / (drawn - 1) if drawn > 1 else np.zeros_like(apart)
    floor = DISCORDANT * float(sizes @ sizes) / n / (len(answers.labels) * n**2)
    return mean, spread + floor, max(degrees(sizes), 1.0)


def items_of(differences: Sequence[Floats]) -> dict[str, Any]:
    """Return how many items there are, and how many were gained and lost."""
    return {
        "items": sum(len(d) for d in differences),
        "gained": int(sum((d > 0).sum() for d in differences)),
        "lost": int(sum((d < 0).sum() for d in differences)),
        "right_or_wrong": all(np.isin(d, (-1, 0, 1)).all() for d in differences),
    }


def _count(answers: BaseAnswers) -> int:
    return sum(values.shape[1] for values in answers.values.values())


def _keys(answers: BaseAnswers, row: int, label: str = "", **named: str) -> dict[str, Any]:
    """Return what a comparison of one model is called."""
    columns = ("base", "method", "variant", "n", "experts", "recipe_id")
    known = {column: answers.models[column][row] for column in columns}
    return {"what": MODEL, "is_average": False, "label": label, "estimator": PAIRED} | known | named
