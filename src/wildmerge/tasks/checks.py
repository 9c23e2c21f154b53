"""Which benchmarks can be scored, known before any model is loaded: shape, metric, answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from wildmerge.errors import Refusal, unknown
from wildmerge.study.file import Benchmark
from wildmerge.study.recipe import short_hash
from wildmerge.tasks.questions import Asked, Item, asked_of, item_of

TYPES = ("multiple_choice", "loglikelihood")
"""Of lm-eval's output types, those whose answers are log-likelihoods of given texts."""


def check_benchmark(benchmark: Benchmark, loaded: Mapping[str, Any]) -> Asked:
    """Refuse a benchmark that cannot be scored; return all that it asks.

    Args:
        benchmark: with the metric that the study asks for, and the limit.
        loaded: lm-eval's tasks and groups.

    Raises:
        Refusal: a shape that is not scored, a metric that is no mean over items, items without an
            answer among their choices.
    """
    _check_group(benchmark, loaded.get("groups") or {})
    digests, items = [], {}
    for name, task in loaded["tasks"].items():
        _check_shape(name, task)
        _check_metric(name, task, benchmark.metric)
        digest, items[name] = _read_documents(name, task, benchmark.limit)
        digests.append([name, digest])
    return Asked(short_hash(digests), tuple(item for name in sorted(items) for item in items[name]))


def mean_metrics(task: Any) -> list[str]:
    """Return the metrics of a task that are the mean of one value an item."""
    from lm_eval.api.metrics import mean

    return [metric for metric, aggregate in task.aggregation().items() if aggregate is mean]


def _check_shape(name: str, task: Any) -> None:
    from lm_eval.api.task import ConfigurableTask

    if not isinstance(task, ConfigurableTask) or task.OUTPUT_TYPE not in TYPES:
        raise Refusal(
            f"benchmark {name}: its output type is {task.OUTPUT_TYPE}; only YAML tasks whose choices "
            f"are given ({', '.join(TYPES)}) are scored"
        )
    filters = [each.name for each in task._filters]
    if len(filters) != 1:
        raise Refusal(
            f"benchmark {name}: has filters {', '.join(filters)}, by which every item counts more than "
            "once; give it one"
        )


def _check_group(benchmark: Benchmark, groups: Mapping[str, Any]) -> None:
    """Refuse a group whose score counts its tasks alike, however many items each has."""
    listed = groups[benchmark.task].aggregate_metric_list if benchmark.task in groups else None
    for each in listed or ():
        if each.metric == benchmark.metric and not each.weight_by_size:
            raise Refusal(
                f"benchmark {benchmark.task}: its {benchmark.metric} is a mean over its tasks and not "
                "over its items; name its tasks instead"
            )


def _check_metric(name: str, task: Any, metric: str) -> None:
    means = mean_metrics(task)
    if taken := sorted({"gold", "other"}.intersection(means)):
        raise Refusal(
            f"benchmark {name}: a metric is called {taken[0]!r}, as a column of log-likelihoods is; "
            "give it another name"
        )
    if metric not in task.aggregation():
        raise Refusal(f"benchmark {name}: {unknown('metric', metric, means)}")
    if metric not in means:
        known = (
            f"; choose one of {', '.join(means)}" if means else ", nor is another of its metrics"
        )
        raise Refusal(f"benchmark {name}: {metric} is no mean over items{known}")


def _read_documents(name: str, task: Any, limit: int | None) -> tuple[str, list[Item]]:
    """Return the digest of a task's items, and the items; refuse items that cannot be scored."""
    digest, items, unanswered = hashlib.sha256(), [], []
    for number, document in task.doc_iterator(limit=limit):
        try:
            choices, answer = asked_of(task, document)
            items.append(item_of(name, task, document, choices, answer))
        except Exception as error:  # of the task's own code
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise Refusal(f"benchmark {name}: item {number} cannot be read ({reason})") from error
        if choices is not None and "" in choices:
            raise Refusal(f"benchmark {name}: item {number} has an empty choice; give it a text")
        if choices is not None and not task.config.process_results and not _is_in(answer, choices):
            unanswered.append(number)
        row = json.dumps([document, choices, answer], sort_keys=True, default=str)
        digest.update(row.encode())
    if unanswered:
        raise Refusal(
            f"benchmark {name}: {len(unanswered)} of {len(items)} items have no answer among their "
            f"choices, first item {unanswered[0]} (test sets that keep their answers secret have labels "
            "such as -1); name a split that has them"
        )
    return digest.hexdigest(), items


def _is_in(answer: Any, choices: list[str]) -> bool:
    """Say whether an answer is a choice's number or text, or a list of numbers."""
    if isinstance(answer, list):
        return bool(answer) and all(_is_in(each, choices) for each in answer)
    if isinstance(answer, str):
        return answer in choices
    return isinstance(answer, int) and 0 <= answer < len(choices)
