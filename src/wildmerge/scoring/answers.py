"""What lm-eval returned for one model on one benchmark, checked before it becomes a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.study.file import Benchmark
from wildmerge.tasks.checks import mean_metrics
from wildmerge.tasks.questions import HASH_DIGITS, Item

Sample = Mapping[str, Any]
"""lm-eval's record of one item."""

SAME_SCORE = 1e-9
FEW_ITEMS = 10
"""With fewer, one choice everywhere may be luck."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to a benchmark; items of all its tasks in one order.

    Attributes:
        values: of each metric that is a mean over items, an item's value each; 0 and 1 are ints.
        gold: log-likelihood of each item's right choice, the best of several; NaN where it is not known.
        other: log-likelihood of its best other choice; NaN where there is none.
        chance: the expected score of a random answer; None where values are not right or wrong.
        remarks: what looks like a broken model.
    """

    values: dict[str, list[float]]
    gold: list[float]
    other: list[float]
    chance: float | None
    remarks: list[str]


def read_answers(
    raw: Mapping[str, Any],
    benchmark: Benchmark,
    tasks: Mapping[str, Any],
    items: Sequence[Item],
) -> Answers:
    """Return the answers in lm-eval's output.

    Args:
        raw: what lm-eval's `evaluate` returned, with its samples.
        benchmark: what was asked.
        tasks: lm-eval's tasks by name.
        items: what was asked, of all tasks in the order of their names.

    Raises:
        Refusal: other items were answered, a log-likelihood or a value is no number, or the metric that
            was asked for is missing or is not the mean of its items.
    """
    samples = [sample for task in sorted(tasks) for sample in raw["samples"][task]]
    _require_asked(samples, items, benchmark)
    _require_numbers(samples, benchmark)
    shared = [mean_metrics(task) for task in tasks.values()]
    values = {}
    for metric in (m for m in shared[0] if all(m in others for others in shared)):
        try:
            values[metric] = _values(raw, benchmark, sorted(tasks), metric)
        except Refusal:
            if metric == benchmark.metric:
                raise
    if benchmark.metric not in values:
        raise Refusal(f"benchmark {benchmark.name}: lm-eval returned no {benchmark.metric}")
    right_or_wrong = all(isinstance(v, int) for column in values.values() for v in column)
    scores = [_scores(sample, item) for sample, item in zip(samples, items, strict=True)]
    choices = [(s, item.gold) for s, item in zip(scores, items, strict=True) if item.choices]
    gold, other = zip(*map(_best, scores, items), strict=True)
    return Answers(
        values=values,
        gold=[*gold],
        other=[*other],
        chance=_chance(choices, len(items)) if right_or_wrong else None,
        remarks=_remarks(choices),
    )


def _require_asked(samples: list[Sample], items: Sequence[Item], benchmark: Benchmark) -> None:
    """Refuse answers to other items than those that were read before."""
    answered = [sample["doc_hash"][:HASH_DIGITS] for sample in samples]
    if answered != [item.doc_hash for item in items]:
        raise Refusal(
            f"benchmark {benchmark.name}: lm-eval scored other items than were asked; its task gives "
            "other documents each time they are read"
        )


def _require_numbers(samples: list[Sample], benchmark: Benchmark) -> None:
    """Refuse log-likelihoods that are NaN, of which lm-eval would take the first as the best."""
    found = [score for sample in samples for score, _ in sample["filtered_resps"]]
    broken = sum(map(math.isnan, found))
    if broken:
        raise Refusal(
            f"benchmark {benchmark.name}: {broken} of {len(found)} log-likelihoods are NaN; the model's "
            "weights are broken, or too large for the dtype it is scored in"
        )


def _values(
    raw: Mapping[str, Any], benchmark: Benchmark, tasks: list[str], metric: str
) -> list[float]:
    """Return a metric's value of every item, where their mean is lm-eval's score."""
    where = f"benchmark {benchmark.name}: lm-eval's {metric}"
    columns: dict[str, list[float]] = {}
    for task in tasks:
        samples = raw["samples"][task]
        columns[task] = [_number(sample.get(metric), where) for sample in samples]
        score = raw["results"][task].get(f"{metric},{samples[0]['filter']}")
        if score is None or abs(_mean(columns[task]) - score) > SAME_SCORE:
            raise Refusal(f"{where} of {task} is {score}, which is not the mean of its items")
    values = [value for column in columns.values() for value in column]
    group = (raw.get("groups") or {}).get(benchmark.task, {}).get(f"{metric},none")
    if group is not None and abs(_mean(values) - group) > SAME_SCORE:
        raise Refusal(f"{where} is {group}, which is not the mean of its items; name its tasks")
    return [int(v) for v in values] if all(v in (0, 1) for v in values) else values


def _number(value: Any, where: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Refusal(f"{where} of an item is {value!r}, which is no number")
    return number


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _scores(sample: Sample, item: Item) -> list[float]:
    """Return the log-likelihoods of an item's choices, or of its one text."""
    scores = [score for score, _ in sample["filtered_resps"]]
    return scores[: item.choices or 1]  # for acc_mutual_info, choices without their question follow


def _best(scores: list[float], item: Item) -> tuple[float, float]:
    """Return the log-likelihoods of the best right and of the best other choice."""
    if not item.choices:
        return scores[0], math.nan
    right = [score for number, score in enumerate(scores) if number in item.gold]
    wrong = [score for number, score in enumerate(scores) if number not in item.gold]
    if not right:
        return math.nan, math.nan
    return max(right), max(wrong, default=math.nan)


Choices = list[tuple[list[float], tuple[int, ...]]]
"""Of each item with choices, their log-likelihoods and the numbers of the right ones."""


def _chance(choices: Choices, count: int) -> float:
    """Return the expected score of a random choice; 0 for items without choices."""
    return math.fsum(max(len(gold), 1) / len(scores) for scores, gold in choices) / count


def _remarks(choices: Choices) -> list[str]:
    """Say what a working model would hardly answer."""
    items = [(scores, gold) for scores, gold in choices if len(scores) > 1]
    equal = sum(len(set(scores)) == 1 for scores, _ in items)
    if equal > len(items) / 2:
        return [f"in {equal} of {len(items)} items all choices have the same log-likelihood"]
    picked = {scores.index(max(scores)) for scores, _ in items}
    asked = {gold for _, gold in items}
    if len(items) >= FEW_ITEMS and len(picked) == 1 < len(asked):
        return [f"answers choice {picked.pop() + 1} in all {len(items)} items"]
    return []
