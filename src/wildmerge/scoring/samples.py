"""What lm-eval writes itself: `results_<time>.json`, with --log_samples `samples_<task>_<time>.jsonl`.

A group is one benchmark where lm-eval's score of it is the mean of its items, else its tasks are.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from wildmerge.errors import Refusal, unknown
from wildmerge.scoring.answered import Answered, chosen, joined
from wildmerge.scoring.conditions import of_lm_eval
from wildmerge.scoring.items import SAME_SCORE
from wildmerge.storage.files import read_json
from wildmerge.tasks.questions import HASH_DIGITS, hash_of_question, question_of

_STAMP = r"(?P<stamp>\d{4}-\d\d-\d\dT[\d.\-]+)"
_SAMPLES = re.compile(rf"samples_(?P<task>.+)_{_STAMP}\.jsonl")
_RESULTS = re.compile(rf".+_{_STAMP}\.json")


@dataclass(frozen=True)
class _Run:
    """Files of one model: samples by task, and the content of the results beside them."""

    samples: dict[str, Path]
    results: list[dict[str, Any]]


def read_samples(path: Path, metric: str | None) -> dict[str, Answered]:
    """Read what a model answered from lm-eval's output.

    Args:
        path: a folder that lm-eval wrote one model's files to, a results file or a samples file.
        metric: which one, as acc or exact_match,strict-match; None for acc, or else the first.

    Returns:
        The answers by benchmark.

    Raises:
        Refusal: there are no samples, or of several runs or models; an item stands there twice; a
            value is no number, or lm-eval's score is not the mean of its items.
    """
    run = _find(path)
    tasks = {task: _read(run, task, metric) for task in run.samples}
    for task, answered in tasks.items():
        for score in _scores(run, task, answered.metric):
            if abs(answered.score - score) > SAME_SCORE:
                raise Refusal(
                    f"{run.samples[task]}: lm-eval's {answered.metric} is {score}, which is not the "
                    "mean of these items; choose another --metric, or score the model again"
                )
    return _with_groups(run, tasks)


# --- which files ----------------------------------------------------------------------------------


def _find(path: Path) -> _Run:
    """Return the files of one model."""
    if path.is_dir():
        found = sorted(path.rglob("samples_*.jsonl"))
        if len(folders := sorted({file.parent for file in found})) > 1:
            raise Refusal(f"{path}: has samples of several models; name one of them: {folders[0]}")
    elif match := _RESULTS.fullmatch(path.name):
        found = sorted(path.parent.glob(f"samples_*_{match['stamp']}.jsonl"))
    else:
        found = [path]
    if not found:
        raise Refusal(f"{path}: no samples; run lm-eval with --log_samples, which writes them")
    samples: dict[str, Path] = {}
    for file in found:
        match = _SAMPLES.fullmatch(file.name)
        task = match["task"] if match else file.stem
        if task in samples:
            raise Refusal(f"{path}: has {task} of several runs; name the results_*.json of one")
        samples[task] = file
    return _Run(samples, list(_results_beside(found)))


def _results_beside(samples: list[Path]) -> Iterator[dict[str, Any]]:
    stamps = {m["stamp"] for file in samples if (m := _SAMPLES.fullmatch(file.name))}
    for stamp in sorted(stamps):
        for file in sorted(samples[0].parent.glob(f"*_{stamp}.json")):
            yield read_json(file, missing="run lm-eval again", broken="run lm-eval again")


def _scores(run: _Run, name: str, metric: str) -> Iterator[float]:
    """Yield lm-eval's scores of a task or group."""
    for result in run.results:
        of_name = (result.get("results") or {}).get(name) or (result.get("groups") or {}).get(name)
        key = metric if "," in metric else f"{metric},none"
        if isinstance(score := (of_name or {}).get(key), int | float):
            yield float(score)


def _result(run: _Run, name: str) -> Mapping[str, Any]:
    """Return the content of the results that a task or group is in; nothing where there are none."""
    named = ("results", "groups")
    found = (r for r in run.results if any(name in (r.get(key) or {}) for key in named))
    return next(found, {})


def _with_groups(run: _Run, tasks: dict[str, Answered]) -> dict[str, Answered]:
    """Put the tasks of a group together, in the order of their names."""
    members: dict[str, list[str]] = {}
    for result in run.results:
        members |= result.get("group_subtasks") or {}
    inner = {name for names in members.values() for name in names}
    found = dict(tasks)
    for group in (name for name in members if name not in inner):
        leaves = sorted({*_leaves(group, members)})
        if not leaves or not found.keys() >= {*leaves}:
            continue
        together = joined([found[leaf] for leaf in leaves])
        scores = [*_scores(run, group, together.metric)] if together else []
        if together and scores and abs(together.score - scores[0]) <= SAME_SCORE:
            found = {name: each for name, each in found.items() if name not in leaves}
            version = of_lm_eval(_result(run, group), group).get("task_version")
            own = {} if version is None else {"task_version": version}
            found[group] = replace(together, conditions={**together.conditions, **own})
    return found


def _leaves(name: str, members: Mapping[str, list[str]]) -> Iterator[str]:
    if name not in members:
        yield name
    for member in members.get(name, ()):
        yield from _leaves(member, members)


# --- what is in one -------------------------------------------------------------------------------


def _read(run: _Run, task: str, metric: str | None) -> Answered:
    """Read one task's samples, in the order of its documents."""
    path, result = run.samples[task], _result(run, task)
    name, _, kept = (metric or "").partition(",")
    records = sorted(_records(path), key=lambda record: record["doc_id"])
    filters = sorted({str(record.get("filter", "none")) for record in records})
    if len(filters) > 1 and kept not in filters:
        raise Refusal(
            f"{path}: every item counts once a filter ({', '.join(filters)}); name one, as "
            f"--metric {name or 'exact_match'},{filters[0]}"
        )
    records = [each for each in records if not kept or str(each.get("filter", "none")) == kept]
    if not records:
        raise Refusal(f"{path}: no items" + (f" of filter {kept}" if kept else ""))
    numbers = [record["doc_id"] for record in records]
    for first, second in zip(numbers, numbers[1:], strict=False):
        if first == second:
            raise Refusal(f"{path}: item {first} stands there twice, so it would count twice")
    of_record = chosen(name or None, [str(m) for m in records[0].get("metrics") or ()], path)
    return Answered(
        metric=of_record if filters == ["none"] else f"{of_record},{kept or filters[0]}",
        model=str(result.get("recipe_id", "")),  # these two as `wildmerge export` writes them
        evaluation=str((result.get("evaluation_ids") or {}).get(task, "")),
        conditions=of_lm_eval(result, task),
        doc_hash=[_hash(record) for record in records],
        question=[_question(record) for record in records],
        values=np.array([_value(record, of_record, path) for record in records]),
    )


def _records(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, start=1):
                record = json.loads(line)
                if not isinstance(record, dict) or not isinstance(record.get("doc_id"), int):
                    raise Refusal(
                        f"{path}:{number}: no sample of lm-eval's; name a samples_*.jsonl"
                    )
                yield record
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; name a folder or file of results") from None
    except ValueError as error:
        raise Refusal(f"{path}: not valid JSON lines ({error}); run lm-eval again") from None


def _hash(record: Mapping[str, Any]) -> str:
    return str(record.get("doc_hash", ""))[:HASH_DIGITS]


def _question(record: Mapping[str, Any]) -> str:
    """Return by what the question is known; where its text is not, by the document."""
    if isinstance(known := record.get("question"), str):  # as `wildmerge export` writes it
        return known
    text = question_of(record.get("doc"))
    return _hash(record) if text is None else hash_of_question(text)


def _value(record: Mapping[str, Any], metric: str, path: Path) -> float:
    value = record.get(metric)
    if not isinstance(value, bool | int | float) or not math.isfinite(value):
        known = [str(m) for m in record.get("metrics") or ()]
        reason = (
            f"is {value!r}, no number" if metric in record else unknown("metric", metric, known)
        )
        raise Refusal(f"{path}: {metric} of item {record['doc_id']}: {reason}")
    return float(value)
