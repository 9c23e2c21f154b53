"""Sub-commands on a study: what it costs, its lock, its jobs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from wildmerge.cli.printing import tell, write_csv
from wildmerge.errors import Refusal


def schema(arguments: argparse.Namespace) -> None:
    """Print the JSON schema of study files."""
    del arguments
    from wildmerge.study.file import json_schema

    print(json.dumps(json_schema(), indent=2, sort_keys=True))


def plan(arguments: argparse.Namespace) -> None:
    """Print what a study costs, before anything runs."""
    from wildmerge.planning.lock import Lock, lock_path
    from wildmerge.planning.opening import read_study
    from wildmerge.planning.plan import plan

    study = read_study(arguments.study, arguments.bases, arguments.limit)
    path = lock_path(arguments.study)
    lock = Lock.read(path) if path.exists() else None
    options = {"gpu": arguments.gpu, "share": arguments.share, "slots": arguments.slots}
    print(plan(study, lock, arguments.results, **options))


def lock(arguments: argparse.Namespace) -> None:
    """Write the lock beside a study."""
    from wildmerge.planning.lock import lock_path
    from wildmerge.planning.opening import lock_study

    opened = lock_study(arguments.study, arguments.bases, arguments.limit, update=arguments.update)
    for line in opened.lines():
        print(line, file=sys.stderr)
    path, lock = lock_path(arguments.study), opened.lock
    print(f"{path}: {len(lock.checkpoints)} checkpoints, {len(lock.tasks)} benchmarks")


def fetch(arguments: argparse.Namespace) -> None:
    """Bring hub checkpoints, or all that a study reads from the network."""
    from wildmerge.planning import fetch
    from wildmerge.storage.files import write_json

    if arguments.what[0].endswith((".yaml", ".yml")):
        study_file, *names = arguments.what
        fetched = fetch.fetch_study(study_file, names, arguments.bases)
    else:
        fetched = fetch.fetch_references(arguments.what)
    for name, place in fetched.items():
        print(f"{name}: {place}")
    if arguments.done:
        write_json(arguments.done, fetched)


def gate(arguments: argparse.Namespace) -> None:
    """Inspect the experts of one of a study's bases; refuse when one would not merge."""
    from wildmerge.merging.inspection import inspect, unmeasured

    opened = _open(arguments)
    ((name, base),) = opened.study.bases.items()
    folder_of = opened.lock.folder
    experts = {expert: folder_of(reference) for expert, reference in base.experts.items()}
    found = inspect(folder_of(base.checkpoint), experts, untie=opened.study.untie)
    skipped = opened.skipped[name].items()
    found.rows.extend(unmeasured(expert, "skipped", why) for expert, why in skipped)
    tell(found, arguments.out)


def recipes(arguments: argparse.Namespace) -> None:
    """Write a study's recipes.csv and benchmarks.csv."""
    from wildmerge.planning.models import list_evaluations, list_models

    opened = _open(arguments)
    study, lock = opened.study, opened.lock
    folder = arguments.results / study.name
    write_csv(folder / "recipes.csv", [model.row() for model in list_models(study, lock)])
    benchmarks = [
        {**e.benchmark.model_dump(), "label": e.benchmark.name, "evaluation_id": e.id}
        for e in list_evaluations(study, lock)
    ]
    write_csv(folder / "benchmarks.csv", benchmarks)


def run(arguments: argparse.Namespace) -> None:
    """Make and score the models of one job."""
    from wildmerge.jobs.devices import choose
    from wildmerge.jobs.run import find_job, run_job
    from wildmerge.storage.files import write_json

    opened = _open(arguments)
    study, lock = opened.study, opened.lock
    job = find_job(study, lock, arguments.job)
    run_job(
        study,
        lock,
        job,
        arguments.results,
        scratch=_scratch(arguments.scratch),
        device=choose(arguments.device),
        threads=arguments.threads,
    )
    if arguments.done:
        write_json(arguments.done, {"job": job.label, "models": [m.recipe_id for m in job.models]})


def status(arguments: argparse.Namespace) -> None:
    """Print where a study stands."""
    from wildmerge.jobs.status import describe

    opened = _open(arguments)
    print(describe(opened.study, opened.lock, arguments.results))


def _scratch(named: str | None) -> Path | None:
    """Return the scratch folder, with this machine's environment variables in its name."""
    import os

    if not named:
        return None
    folder = os.path.expandvars(named)
    if "$" in folder:
        raise Refusal(f"--scratch {named}: not set on {os.uname().nodename}; name another folder")
    return Path(folder)


def _open(arguments: argparse.Namespace):  # noqa: ANN202 - OpenStudy, imported late
    from wildmerge.planning.opening import open_study

    return open_study(arguments.study, arguments.bases, arguments.limit)
