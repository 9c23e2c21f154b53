"""A model's answers from a folder of results: of `wildmerge evaluate`, of a study, or of lm-eval."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from wildmerge.errors import Refusal
from wildmerge.scoring.answered import Answered, chosen
from wildmerge.scoring.conditions import of_result
from wildmerge.scoring.items import AGAIN, read_items, read_values
from wildmerge.scoring.result import check_result
from wildmerge.scoring.samples import read_samples
from wildmerge.storage.files import read_json
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark


class Key(NamedTuple):
    """A benchmark of one model: a task, and the id of how it was asked ("" if lm-eval asked)."""

    task: str
    evaluation: str


def read_model(path: Path, metric: str | None) -> dict[Key, Answered]:
    """Read one model's answers to all benchmarks that stand at a place.

    Args:
        path: what `wildmerge evaluate` got as --out, if it holds one model; `evals/<model>` of that or
            of a study's results; or lm-eval's output (a folder, results_*.json or samples_*.jsonl).
        metric: see `samples.read_samples`.

    Raises:
        Refusal: there is nothing, or more than one model, or something that cannot be read.
    """
    if not path.exists():
        raise Refusal(f"{path}: there is nothing; name a folder or file of results")
    folder = _folder(path)
    if folder is None:
        return {Key(name, ""): each for name, each in read_samples(path, metric).items()}
    files = sorted(folder.glob("*.json"))
    if not files:
        raise Refusal(f"{folder}: no results; score the model again")
    found = [_read(file, metric) for file in files]
    return {key: answered for key, answered in found}


def _folder(path: Path) -> Path | None:
    """Return the folder of one model's results; None where they are not ours."""
    if path.parent.name == "evals" and path.is_dir():
        return path
    several = sorted([*path.glob("evals/*/"), *(each.parent for each in path.glob("*/evals/"))])
    if not several:
        return None
    if len(several) > 1 or several[0].parent == path:
        raise Refusal(f"{path}: name the folder of one model in it: {several[0]}")
    return several[0]


def _read(path: Path, metric: str | None) -> tuple[Key, Answered]:
    """Read one result with its answers."""
    content = read_json(path, missing="score the model again", broken=AGAIN)
    task, id_ = (str(content.get(key)) for key in ("task", "evaluation_id"))
    known = content.get("metrics")
    name = chosen(metric, list(known) if isinstance(known, dict) else [], path)
    evaluation = Evaluation(Benchmark.model_construct(task=task, metric=name), id_)
    check_result(content, path, path.parent.name, evaluation)
    try:
        count, documents = content["n"], content["documents"]
        score = float(content["metrics"][name]["score"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{path}: lacks {error}; {AGAIN}") from error
    shared = evaluation.items(path.parent.parent.parent)
    items = read_items(shared)
    if (items.documents, len(items.doc_hash)) != (documents, count):
        raise Refusal(f"{shared}: not the items of {path}; {AGAIN}")
    values = read_values(path.with_suffix(".parquet"), name, count, score).astype(np.float64)
    return Key(task, id_), Answered(
        metric=name,
        model=str(content["model"]),
        evaluation=id_,
        conditions=of_result(content),
        doc_hash=items.doc_hash,
        question=items.question,
        values=values,
    )
