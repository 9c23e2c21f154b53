"""Where a study stands: what is done, running, failed and left, without opening logs.

What is done is read off the result files, the rest off the jobs' records. Imports no torch.
"""

from __future__ import annotations

import time
from pathlib import Path

from wildmerge.jobs.record import JobRecord, read_record, record_path
from wildmerge.planning.lock import Lock
from wildmerge.planning.models import Job, list_evaluations, list_jobs, missing
from wildmerge.study.file import Study


def describe(study: Study, lock: Lock, results: Path) -> str:
    """Return the state of a study as text.

    Args:
        study: the study.
        lock: its lock.
        results: root of all results.
    """
    evaluations, jobs = list_evaluations(study, lock), list_jobs(study, lock)
    left = {m.recipe_id: len(missing(results, m, evaluations)) for job in jobs for m in job.models}
    records = [(job, read_record(record_path(results, study.name, job.id))) for job in jobs]
    running = [(job, record) for job, record in records if record and not record.error]
    unfinished = [(job, record) for job, record in records if _unfinished(job, left)]
    stopped = [(job, record) for job, record in unfinished if record and record.error]
    waiting = [job for job, record in unfinished if not record]
    done, total = sum(not n for n in left.values()), len(left)
    lines = [
        f"{study.name}: {done} of {total} models done; jobs: {len(running)} running, "
        f"{len(stopped)} failed, {len(waiting)} waiting",
        *([_time_left(running, left, results)] if done < total else []),
        *(_running(job, record, left) for job, record in running),
        *_inspections(study, results),
        *(line for each in stopped for line in _failed(*each, left, results, study)),
    ]
    return "\n".join(lines)


def _unfinished(job: Job, left: dict[str, int]) -> int:
    return sum(left[model.recipe_id] > 0 for model in job.models)


def _running(job: Job, record: JobRecord, left: dict[str, int]) -> str:
    done = len(job.models) - _unfinished(job, left)
    return f"running  {job.label}: {done} done, {_span(time.time() - record.started)} on {record.place}"


def _failed(
    job: Job, record: JobRecord, left: dict[str, int], results: Path, study: Study
) -> list[str]:
    labels = {model.recipe_id: model.label for model in job.models if left[model.recipe_id]}
    failures = {labels[model]: why for model, why in record.failures.items() if model in labels}
    log = results / study.name / "logs" / f"models-{job.id}.log"
    reasons = failures or {f"{job.label}, on {record.place}": record.error or "no reason is known"}
    return [*(f"failed   {what}: {why}" for what, why in reasons.items()), f"         log: {log}"]


def _inspections(study: Study, results: Path) -> list[str]:
    """Return why an inspection refused experts: without it, no job of its base can start."""
    found = []
    for base in study.bases:
        log = results / study.name / "logs" / f"inspect-{base}.log"
        if log.exists() and not (results / study.name / "inspect" / f"{base}.csv").exists():
            words = (log.read_text(encoding="utf-8", errors="replace").splitlines() or [""])[-1]
            if words.startswith("wildmerge: "):
                found.append(f"failed   inspect {base}: {words.removeprefix('wildmerge: ')}")
    return found


def _time_left(running: list[tuple[Job, JobRecord]], left: dict[str, int], results: Path) -> str:
    """Extrapolate from what the running jobs have finished since each began."""
    if not running:
        return "no job is running now; if snakemake is not either, start it again to go on"
    pace = 0.0  # results a second
    for job, record in running:
        files = [f for m in job.models for f in (results / "evals" / m.recipe_id).glob("*.json")]
        finished = sum(file.stat().st_mtime > record.started for file in files)
        pace += finished / max(time.time() - record.started, 1.0)
    if not pace:
        return "time left: known when a running job has its first result"
    return f"time left: about {_span(sum(left.values()) / pace)} at the pace of these jobs"


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
