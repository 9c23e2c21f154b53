"""Result files: every metric of one benchmark of one model, and all that decided it.

Schema 3. A file stands at `evals/<model>/<task>-<evaluation>.json` below its root, and names both again:
what is read is compared with what was asked for. Each item's answers stand in a Parquet file beside it,
which is written before: see `scoring.items`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.scoring.answers import Answers
from wildmerge.scoring.items import (
    AGAIN,
    LIKELIHOODS,
    read_items,
    read_likelihoods,
    read_values,
)
from wildmerge.storage.files import read_json
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import EvaluationSettings

Result = dict[str, Any]

SCHEMA = 3


def result_of(
    answers: Answers,
    evaluation: Evaluation,
    *,
    model: str,
    settings: EvaluationSettings,
    documents: str,
    raw: Mapping[str, Any],
) -> Result:
    """Return what a result file holds, apart from how the scores were computed.

    Args:
        answers: the model's.
        evaluation: what was asked.
        model: the model's recipe id, or the identity of its folder.
        settings: how it was asked.
        documents: digest of items, choices and answers in the order asked.
        raw: lm-eval's output.
    """
    benchmark = evaluation.benchmark
    libraries = ["lm_eval", "transformers", "torch", *(["vllm"] * (settings.backend == "vllm"))]
    return {
        "schema": SCHEMA,
        "model": model,
        "evaluation_id": evaluation.id,
        "task": benchmark.task,
        "n": len(answers.gold),
        "chance": answers.chance,
        "metrics": {metric: _summary(values) for metric, values in answers.values.items()},
        "documents": documents,
        "remarks": answers.remarks,
        "settings": {
            "num_fewshot": raw["n-shot"].get(benchmark.task),
            "limit": benchmark.limit,
            **settings.model_dump(),
        },
        "versions": {
            **{name: metadata.version(name) for name in libraries},
            "task": raw["versions"].get(benchmark.task),
        },
    }


def read_result(path: Path, model: str, evaluation: Evaluation) -> Result:
    """Read a result file.

    Raises:
        Refusal: it is of another version, model or benchmark, or lacks the metric that is asked for.
    """
    content = read_json(path, missing="run again", broken=AGAIN)
    check_result(content, path, model, evaluation)
    return content


def check_result(content: Result, path: Path, model: str, evaluation: Evaluation) -> None:
    """Refuse a result that is not of this schema, model and evaluation, or lacks the metric.

    Args:
        content: of the file.
        path: of the file, for the message.
        model: what its results are stored under.
        evaluation: what was asked for, with the metric.

    Raises:
        Refusal: names the file, what it says and what was asked for.
    """
    if content.get("schema") != SCHEMA:
        raise Refusal(
            f"{path}: written by another version of wildmerge (schema {content.get('schema')}, "
            f"not {SCHEMA}); {AGAIN}"
        )
    benchmark = evaluation.benchmark
    asked = {"model": model, "evaluation_id": evaluation.id, "task": benchmark.task}
    for key, wanted in asked.items():
        if content.get(key) != wanted:
            raise Refusal(f"{path}: {key} is {content.get(key)!r}, not {wanted!r}; {AGAIN}")
    metrics = content.get("metrics")
    if not isinstance(metrics, dict) or benchmark.metric not in metrics:
        found = ", ".join(metrics or ()) or "none"
        raise Refusal(f"{path}: no metric {benchmark.metric!r}, it has {found}; {AGAIN}")


def view_of(result: Result, metric: str, answers: Path, shared: Path) -> Result:
    """Return a result for a reader: one metric's score on top, and every item with its answer.

    Args:
        result: of one model and benchmark.
        metric: to show.
        answers: file of that model's answers.
        shared: file of the items.

    Returns:
        The result with `metric`, `score`, `stderr` and `items`: lists of `doc_hash`, `correct` (the
        metric's value), `gold` and `other` (log-likelihoods, None where there is none).

    Raises:
        Refusal: a file cannot be read, or is not of that result.
    """
    score = result["metrics"][metric]
    asked, values = read_items(shared), read_values(answers, metric, result["n"], score["score"])
    likelihoods = zip(LIKELIHOODS, read_likelihoods(answers), strict=True)
    items = {
        "doc_hash": asked.doc_hash,
        "correct": values.tolist(),
        **{name: [_finite(value) for value in column.tolist()] for name, column in likelihoods},
    }
    rest = {key: value for key, value in result.items() if key != "metrics"}
    return {**rest, "metric": metric, **score, "items": items}


def _finite(value: float) -> float | None:
    """Return a number that JSON has, None for others."""
    return value if math.isfinite(value) else None


def _summary(values: list[float]) -> dict[str, float]:
    """Return mean and standard error of the mean (0 of one item)."""
    count = len(values)
    mean = math.fsum(values) / count
    squares = math.fsum((value - mean) ** 2 for value in values)
    stderr = math.sqrt(squares / max(count - 1, 1) / count)
    return {"score": mean, "stderr": stderr}
