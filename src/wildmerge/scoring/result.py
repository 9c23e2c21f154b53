"""What a result file holds: score, error, chance, settings, versions and every item's correctness."""

from __future__ import annotations

from dataclasses import asdict
from importlib import metadata
from typing import Any

from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import EvaluationSettings

Result = dict[str, Any]

HASH_DIGITS = 16
"""Of lm-eval's 64 a document: a study has thousands of results of tens of thousands of items."""


def tokens_of(lm: Any) -> dict[str, int]:
    """Return what the `prefix` backend has counted so far: tokens, requests, truncated requests."""
    return asdict(lm.counts) if hasattr(lm, "counts") else {}


def result_of(raw: Any, evaluation: Evaluation, settings: EvaluationSettings) -> Result:
    """Reduce lm-eval's output to what a result file holds."""
    benchmark = evaluation.benchmark
    samples = [s for task in sorted(raw["samples"]) for s in raw["samples"][task]]
    correct = [float(sample[benchmark.metric]) for sample in samples]
    count = len(correct)
    share = sum(correct) / count
    scores = {**raw["results"], **raw.get("groups", {})}.get(benchmark.task, {})
    return {
        "schema": 1,
        "task": benchmark.task,
        "evaluation_id": evaluation.id,
        "metric": benchmark.metric,
        # a tag, which is a list of tasks, has no score of its own: that of all items
        "score": float(scores.get(f"{benchmark.metric},none", share)),
        "stderr": (share * (1 - share) / max(count - 1, 1)) ** 0.5,
        "n": count,
        "chance": sum(1 / len(sample["filtered_resps"]) for sample in samples) / count,
        "settings": {
            "num_fewshot": raw["n-shot"].get(benchmark.task),
            "limit": benchmark.limit,
            **settings.model_dump(),
        },
        "versions": {
            "lm_eval": metadata.version("lm_eval"),
            "task": raw["versions"].get(benchmark.task),
            "transformers": metadata.version("transformers"),
            "torch": metadata.version("torch"),
        },
        "items": {
            "doc_hash": [sample["doc_hash"][:HASH_DIGITS] for sample in samples],
            "correct": [int(value) for value in correct],
        },
    }
