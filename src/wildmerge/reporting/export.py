"""A study's items for other tools: as lm-eval's samples files, or as one long table."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildmerge.errors import Refusal
from wildmerge.reporting.tables.answers import Answers
from wildmerge.reporting.tables.collect import MODEL, Results, collect, evaluation_of, model_name
from wildmerge.scoring.conditions import Conditions, as_lm_eval, of_result
from wildmerge.scoring.items import AGAIN, LIKELIHOODS, Items, read_items, read_likelihoods
from wildmerge.storage.files import read_json, write_json
from wildmerge.storage.folders import new_folder

Format = Literal["samples", "csv", "parquet"]
STAMP = "1970-01-01T00-00-00.{:06d}"
"""The time in the names of lm-eval's files; a fixed one, so that equal results are equal bytes."""


class _Scored(NamedTuple):
    """One evaluation of one model: what was asked, and the answers by the study's metrics."""

    task: str
    items: Items
    gold: NDArray[np.float32]
    other: NDArray[np.float32]
    labels: dict[str, str]  # metric -> label of the benchmark
    answers: dict[str, Answers]  # by metric
    evaluation: str  # its id
    conditions: Conditions


def export(results: Path, study: str, form: Format, out: Path) -> tuple[int, int]:
    """Write the items of a study's models into a new folder.

    `samples`: a folder a model, named by its recipe id, with samples and results as lm-eval names them.
    `csv`, `parquet`: a file items.csv or items.parquet with a row a model, benchmark and item.

    Args:
        results: root of all results.
        study: the study's name.
        form: which of them.
        out: the folder; it appears when it is complete.

    Returns:
        How many models were written, and how many of the study's lack a result.

    Raises:
        Refusal: there is no result yet, a file of results cannot be read, `out` exists.
    """
    if out.exists():
        raise Refusal(f"{out}: exists; choose another --out")
    found = collect(results, study)
    if not found.answers:
        raise Refusal(f"{study}: no results yet; run the study first")
    models = found.recipes.drop_duplicates("recipe_id")
    with new_folder(out) as folder:
        if form == "samples":
            for recipe, scored in _models(found, results, models):
                _write_samples(folder / recipe.recipe_id, recipe, scored)
        else:
            _write_table(folder / f"items.{form}", _models(found, results, models))
    written = {recipe_id for recipe_id, _ in found.answers}
    return len(written), found.missing["recipe_id"].nunique()


def _models(
    found: Results, results: Path, models: pd.DataFrame
) -> Iterator[tuple[Any, list[_Scored]]]:
    """Yield each model that has a result, with its evaluations in the order of the study."""
    shared: dict[str, Items] = {}
    by_evaluation: dict[str, list[Any]] = defaultdict(list)
    for benchmark in found.benchmarks.itertuples():
        by_evaluation[benchmark.evaluation_id].append(benchmark)
    for recipe in models.itertuples():
        scored = []
        for id_, benchmarks in by_evaluation.items():
            there = [b for b in benchmarks if (recipe.recipe_id, b.label) in found.answers]
            if not there:
                continue
            evaluation = evaluation_of(there[0])
            if id_ not in shared:
                shared[id_] = read_items(evaluation.items(results))
            likelihoods = read_likelihoods(evaluation.answers(results, recipe.recipe_id))
            labels = {b.metric: b.label for b in there}
            answers = {b.metric: found.answers[recipe.recipe_id, b.label] for b in there}
            conditions = of_result(
                read_json(evaluation.path(results, recipe.recipe_id), missing=AGAIN, broken=AGAIN)
            )
            scored.append(
                _Scored(there[0].task, shared[id_], *likelihoods, labels, answers, id_, conditions)
            )
        if scored:
            yield recipe, scored


# --- lm-eval's files ------------------------------------------------------------------------------


def _write_samples(folder: Path, recipe: Any, scored: list[_Scored]) -> None:
    """Write one model's samples; a task that was asked in two ways is in two runs."""
    folder.mkdir()
    runs: list[dict[str, _Scored]] = []
    for each in scored:
        free = [run for run in runs if each.task not in run]
        if not free:
            free = [{}]
            runs += free
        free[0][each.task] = each
    for number, run in enumerate(runs):
        stamp = STAMP.format(number)
        for each in run.values():
            for task, rows in _tasks(each.items).items():
                lines = [json.dumps(sample) + "\n" for sample in _samples(each, rows)]
                path = folder / f"samples_{task}_{stamp}.jsonl"
                path.write_text("".join(lines), encoding="utf-8")
        write_json(folder / f"results_{stamp}.json", _results(recipe, run))


def _tasks(items: Items) -> dict[str, list[int]]:
    """Return the rows of each task of a group."""
    rows: dict[str, list[int]] = defaultdict(list)
    for row, task in enumerate(items.task):
        rows[task].append(row)
    return rows


def _samples(scored: _Scored, rows: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the samples of one task."""
    for number, row in enumerate(rows):
        yield {
            "doc_id": number,
            "doc_hash": scored.items.doc_hash[row],
            "question": scored.items.question[row],
            "filter": "none",
            "metrics": list(scored.answers),
            **{metric: float(each.values[row]) for metric, each in scored.answers.items()},
            **{name: _finite(getattr(scored, name)[row]) for name in LIKELIHOODS},
        }


def _results(recipe: Any, run: Mapping[str, _Scored]) -> dict[str, Any]:
    """Return what lm-eval writes beside samples: whose they are, scores, members of groups."""
    content: dict[str, Any] = {
        "model_name": model_name(recipe),
        "recipe_id": recipe.recipe_id,
        **{key: {} for key in ("results", "groups", "group_subtasks", "n-samples")},
        **as_lm_eval({task: scored.conditions for task, scored in run.items()}),
        "evaluation_ids": {},
    }
    for task, scored in run.items():
        members = _tasks(scored.items)
        for member, rows in members.items():
            content["results"][member] = {
                f"{metric},none": math.fsum(each.values[rows].tolist()) / len(rows)
                for metric, each in scored.answers.items()
            }
            content["n-samples"][member] = {"original": len(rows), "effective": len(rows)}
            content["evaluation_ids"][member] = scored.evaluation
        if [*members] != [task]:
            scores = {f"{metric},none": each.score for metric, each in scored.answers.items()}
            content["groups"][task] = scores
            content["group_subtasks"][task] = sorted(members)
    return content


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


# --- one long table -------------------------------------------------------------------------------


def _write_table(path: Path, models: Iterator[tuple[Any, list[_Scored]]]) -> None:
    """Write a row a model, benchmark and item, one model after the other."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as stream:
            for number, (recipe, scored) in enumerate(models):
                _frame(recipe, scored).to_csv(
                    stream, index=False, header=not number, lineterminator="\n"
                )
        return
    writer = None
    for recipe, scored in models:
        table = pa.Table.from_pandas(_frame(recipe, scored), preserve_index=False)
        if writer is None:
            writer = pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer is not None:
        writer.close()


def _frame(recipe: Any, scored: list[_Scored]) -> pd.DataFrame:
    """Return the rows of one model."""
    parts = [
        pd.DataFrame(
            {
                **{column: getattr(recipe, column) for column in MODEL},
                "model": model_name(recipe),
                "label": label,
                "task": each.items.task,
                "question_id": [f"{label}-{row}" for row in range(len(each.gold))],
                "cluster_id": [f"{label}-{question}" for question in each.items.question],
                "doc_hash": each.items.doc_hash,
                "score": each.answers[metric].values.astype(np.float64),
                "gold": each.gold,
                "other": each.other,
            }
        )
        for each in scored
        for metric, label in each.labels.items()
    ]
    return pd.concat(parts, ignore_index=True)
