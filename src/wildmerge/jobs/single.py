"""Scoring one model outside of a study, into files that say whose scores they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildmerge.merging.identities import files_of, identity_of
from wildmerge.planning.models import evaluation_id
from wildmerge.scoring.progress import RequestsBar
from wildmerge.scoring.result import read_result, view_of
from wildmerge.scoring.session import Session
from wildmerge.storage.files import write_json
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark


def score_folder(
    folder: Path, benchmarks: Sequence[Benchmark], session: Session, out: Path
) -> list[dict[str, Any]]:
    """Score a model folder; what was scored before with the same bytes and settings is not again.

    Whole results stand below out/evals/<model>/ and out/items/, and what was asked for last of a task
    in out/<task>.json.

    Args:
        folder: the model.
        benchmarks: what to score it on, checked by the session.
        session: that scores it.
        out: folder of the result files.

    Returns:
        A score a benchmark, see `scoring.result.view_of`.
    """
    model = identity_of(files_of(str(folder))).replace(":", "-")
    evaluations = [_evaluation(benchmark, session) for benchmark in benchmarks]
    missing = [each for each in evaluations if not each.is_finished(out, model)]
    with RequestsBar(folder.name, missing) as bar:
        session.score(folder, model, evaluations, out, on_built=bar.expect, on_scored=bar.update)
    session.share(evaluations, out)  # also where all was scored before
    scores = []
    for each in evaluations:
        result = read_result(each.path(out, model), model, each)
        files = each.answers(out, model), each.items(out)
        scores.append(view_of(result, each.benchmark.metric, *files))
        write_json(out / f"{each.benchmark.task}.json", scores[-1])
    return scores


def _evaluation(benchmark: Benchmark, session: Session) -> Evaluation:
    """Return a benchmark with the id of what is asked: data are known by the documents themselves."""
    data = {"documents": session.asked[benchmark].documents}
    locked = session.definition(benchmark) | {"data": data}
    return Evaluation(benchmark, evaluation_id(benchmark, locked, session.settings))
