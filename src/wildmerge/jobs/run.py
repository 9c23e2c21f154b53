"""One job of a study: merge each of its models into scratch space, score it, delete the weights.

At most one merged checkpoint of a job exists at a time. Every result is durable as soon as it is known,
and what exists is not made again: a killed job, run once more, goes on where it was. Two jobs, also of
different studies, that share a model take turns at it, and the second finds it done.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from wildmerge.checkpoints.adapter import is_adapter
from wildmerge.errors import Refusal
from wildmerge.jobs.record import JobRecord, last_line, record_path, recording
from wildmerge.planning.lock import Lock, check_unchanged
from wildmerge.planning.models import (
    Job,
    Model,
    distinct,
    list_evaluations,
    list_jobs,
    missing,
    spectra_of,
)
from wildmerge.scoring.progress import RequestsBar
from wildmerge.storage.files import write_json
from wildmerge.storage.folders import private_folder
from wildmerge.storage.locks import locked
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Study


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
        threads: of torch, and tensors merged at once on a CPU.

    Raises:
        Refusal: names every model that could not be made or scored, after the others are done.
    """
    evaluations = list_evaluations(study, lock)
    shared = all(each.items(results).exists() for each in evaluations)
    if shared and not any(missing(results, model, evaluations) for model in job.models):
        return
    for network in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):  # downloads belong to fetching
        os.environ[network] = "1"
    path, models = record_path(results, study.name, job.id), [m.recipe_id for m in job.models]
    with recording(path, job.label, models) as record:
        worker = _Worker(
            study,
            lock,
            results,
            scratch=scratch or results / "scratch",
            device=device,
            threads=threads,
        )
        _work_off(worker, job, evaluations, record)


def _work_off(worker: _Worker, job: Job, evaluations: list[Evaluation], record: JobRecord) -> None:
    """Make and score a job's models; one that fails, for whatever reason, does not stop the others."""
    asked = [e for m in job.models for e in distinct(missing(worker.results, m, evaluations))]
    worker.session.check([each.benchmark for each in evaluations])  # before the first merge
    worker.session.share(evaluations, worker.results)
    failed = []
    with RequestsBar(job.label, asked) as bar:
        for model in _in_turn(job.models, worker.results):
            left = missing(worker.results, model, evaluations)
            if not left:  # perhaps done by another job in the meantime
                continue
            say = (
                partial(print, file=sys.stderr, flush=True) if bar.disable else bar.set_postfix_str
            )
            try:
                say(f"begun: {model.label}, {len(left)} benchmarks")  # in a log, two lines a model
                worker.make_and_score(model, left, bar)
                say(f"done: {model.label}")
            except Exception as error:
                if not isinstance(error, Refusal):
                    traceback.print_exc()
                record.failures[model.recipe_id] = last_line(error)
                failed.append(f"{model.label}: {last_line(error)}")
            gc.collect()  # what a failed model has left on the device, too
    if failed:
        raise Refusal("; ".join(failed))


def _in_turn(models: Sequence[Model], results: Path) -> Iterator[Model]:
    """Give each model while no other job works on it; those that are taken come last."""
    later: list[Model] = []
    for wait in (False, True):
        for model in later if wait else models:
            with locked(results / "locks" / model.recipe_id, wait=wait) as mine:
                if mine:
                    yield model
                else:
                    later.append(model)


class _Worker:
    """What the models of a job share: study, places and one scoring session."""

    def __init__(
        self, study: Study, lock: Lock, results: Path, *, scratch: Path, device: str, threads: int
    ) -> None:
        import torch

        from wildmerge.scoring.session import Session

        torch.set_num_threads(threads)
        self.study, self.lock = study, lock
        self.results, self.scratch = results, scratch
        self.device, self.threads = device, threads
        self.session = Session(
            [b.task for b in study.benchmarks],
            study.evaluation,
            tasks_dir=study.tasks_dir,
            task_data=study.task_data,
            locked=lock.tasks,
            store=results / "requests",
            device=device,
        )

    def make_and_score(self, model: Model, evaluations: list[Evaluation], bar: RequestsBar) -> None:
        """Score one model on the given benchmarks, merging it first where it is a merge."""
        with self._weights(model) as folder:
            self.session.score(
                folder,
                model.recipe_id,
                evaluations,
                self.results,
                on_built=bar.expect,
                on_scored=bar.update,
            )
        if model.kind != "merge":  # a checkpoint itself, which was read until now
            where = self.results, model.recipe_id
            self._check(
                model, [f for e in evaluations for f in (e.path(*where), e.answers(*where))]
            )

    @contextmanager
    def _weights(self, model: Model) -> Iterator[Path]:
        """Give the folder of a model's weights; a merge's is gone afterwards unless it is kept.

        An adapter is scored as the model that it makes of its base.
        """
        self._check(model)
        kept = self.results / "merges" / model.recipe_id
        single = (*model.recipe.experts, model.recipe.base)[0]
        if model.kind != "merge" and not is_adapter(self.lock.checkpoints[single]["config"]):
            yield self.lock.folder(single)
        elif kept.exists():
            yield kept
        elif self.study.keep_weights and model.kind == "merge":
            self._merge(model, kept)
            yield kept
        else:
            with private_folder(self.scratch, "wildmerge-") as folder:
                self._merge(model, folder / model.recipe_id)
                yield folder / model.recipe_id

    def _merge(self, model: Model, out: Path) -> None:
        from wildmerge.merging.merge import merge

        recipe = model.recipe
        if model.kind != "merge":  # any method returns a single expert as it is
            recipe = recipe.model_copy(update={"method": "task_arithmetic"})
        report = merge(
            recipe,
            out,
            folders={n: self.lock.folder(n) for n in (model.recipe.base, *model.recipe.experts)},
            identities=self.lock.identities,
            spectra=spectra_of(model, self.lock, self.results / self.study.name),
            method_folders=self.study.method_folders,
            device=self.device,
            threads=self.threads,
            progress=False,
        )
        self._check(model, [out])  # what was read is what was locked
        if model.kind == "merge":
            write_json(self.results / "merges" / f"{model.recipe_id}.json", report)

    def _check(self, model: Model, made: Sequence[Path] = ()) -> None:
        """Refuse checkpoints that are not as locked, and remove what was made of them."""
        try:
            for name in (model.recipe.base, *model.recipe.experts):
                check_unchanged(self.lock, name)
        except Refusal:
            for path in made:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            raise
