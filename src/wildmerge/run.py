"""One job of a study: merge each of its models into scratch space, score it, delete the weights.

At most one merged checkpoint of a job exists at a time. Every result is durable as soon as it is known,
and what exists is not made again: a killed job, run once more, goes on where it was.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from wildmerge.errors import Refusal
from wildmerge.files import private_folder, write_json
from wildmerge.lock import Lock, check_unchanged
from wildmerge.models import Job, Model, Test, list_jobs, list_tests, spectra_of
from wildmerge.study import Study


def find_job(study: Study, lock: Lock, job_id: str) -> Job:
    """Return a job of a study by its id; raises Refusal when the study has no such job."""
    for job in list_jobs(study, lock):
        if job.id == job_id:
            return job
    raise Refusal(
        f"job {job_id}: not of this study; it changed since the job was planned, start anew"
    )


def run_job(  # the one place where merging and scoring meet
    study: Study,
    lock: Lock,
    job: Job,
    results: Path,
    *,
    scratch: Path | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Make and score the models of a job; what is finished already is left alone.

    Args:
        study: the study.
        lock: its lock.
        job: one of its jobs.
        results: root of all results.
        scratch: where merged weights live for a moment; default inside of `results`.
        device: "cpu", "cuda" or "cuda:i".
        threads: tensors merged at once on a CPU.

    Raises:
        Refusal: names every model that could not be made or scored, after the others are done.
    """
    tests = list_tests(study, lock)
    todo = [
        (model, missing) for model in job.models if (missing := _missing(results, model, tests))
    ]
    if not todo:
        return
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # downloads belong to fetching, not to computing
    worker = _Worker(
        study,
        lock,
        results,
        scratch=scratch or results / "scratch",
        device=device,
        threads=threads,
    )
    failures = []
    total = sum(len(missing) for _, missing in todo)
    with tqdm(total=total, unit="benchmark", desc=job.label, disable=None, file=sys.stderr) as bar:
        for model, missing in todo:
            try:
                worker.make_and_score(model, missing, bar)
                if bar.disable:  # in a log, one line a model
                    print(f"done: {model.label}", file=sys.stderr, flush=True)
            except Refusal as refusal:
                failures.append(f"{model.label}: {refusal}")
    if failures:
        raise Refusal("; ".join(failures))


def _missing(results: Path, model: Model, tests: list[Test]) -> list[Test]:
    """Return the benchmarks without a result; all of them when a merge's report is gone."""
    if model.kind == "merge" and not (results / "merges" / f"{model.id}.json").exists():
        return tests
    return [test for test in tests if not test.result(results, model).exists()]


class _Worker:
    """What the models of a job share: study, places and one scoring session."""

    def __init__(
        self, study: Study, lock: Lock, results: Path, *, scratch: Path, device: str, threads: int
    ) -> None:
        from wildmerge.scoring.evaluate import Session

        self.study, self.lock = study, lock
        self.results, self.scratch = results, scratch
        self.device, self.threads = device, threads
        self.session = Session(
            [b.task for b in study.benchmarks],
            study.evaluation,
            tasks_dir=study.tasks_dir,
            task_data=study.task_data,
            store=results / "requests",
            device=device,
        )

    def make_and_score(self, model: Model, tests: list[Test], bar: tqdm[None]) -> None:
        """Score one model on the given benchmarks, merging it first where it is a merge."""
        from wildmerge.scoring.evaluate import Item

        items = [Item(t.benchmark, t.id, t.result(self.results, model)) for t in tests]
        with self._weights(model) as folder:
            bar.set_postfix_str(model.label)
            self.session.score(folder, items, on_done=lambda item: bar.update())

    @contextmanager
    def _weights(self, model: Model) -> Iterator[Path]:
        """Give the folder of a model's weights; a merge's is gone afterwards unless it is kept."""
        for name in (model.recipe.base, *model.recipe.experts):
            check_unchanged(self.lock, name)
        kept = self.results / "merges" / model.id
        if model.kind != "merge":
            yield Path(model.recipe.experts[0] if model.recipe.experts else model.recipe.base)
        elif kept.exists():
            yield kept
        elif self.study.keep_weights:
            self._merge(model, kept)
            yield kept
        else:
            with private_folder(self.scratch, "wildmerge-") as folder:
                self._merge(model, folder / model.id)
                yield folder / model.id

    def _merge(self, model: Model, out: Path) -> None:
        from wildmerge.merge import merge

        report = merge(
            model.recipe,
            out,
            spectra=spectra_of(model, self.lock, self.results),
            device=self.device,
            threads=self.threads,
            progress=False,
        )
        write_json(self.results / "merges" / f"{model.id}.json", report)
