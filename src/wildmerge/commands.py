"""What each sub-command does: a thin call of one function of the stage.

Libraries are imported by the sub-command that needs them, so that help and refusals come at once.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
from pathlib import Path

from wildmerge.errors import Refusal


def merge(arguments: argparse.Namespace) -> None:
    """Merge the recipe into a model folder."""
    import os

    from wildmerge.merge import merge, require_mergeable
    from wildmerge.recipe import Recipe
    from wildmerge.validation import parse, read_yaml

    recipe = parse(Recipe, read_yaml(arguments.recipe), arguments.recipe)
    if arguments.out.exists() and not arguments.overwrite:
        raise Refusal(f"{arguments.out}: exists; give --overwrite or choose another --out")
    require_mergeable(recipe)  # before torch is imported, which takes seconds
    threads = arguments.threads or os.cpu_count() or 1
    report = merge(
        recipe,
        arguments.out,
        device=_device(arguments.device),
        threads=threads,
        overwrite=arguments.overwrite,
    )
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{arguments.out}: {recipe.method} of {len(recipe.experts)} experts, "
        f"update norm {report['update_norm']:.4g}, {report['seconds']:.1f} s"
    )


def methods(arguments: argparse.Namespace) -> None:
    """List the merge methods."""
    del arguments
    from wildmerge import methods

    for method in methods.discover().values():
        parameters = ", ".join(f"{k}: {json.dumps(v)}" for k, v in method.complete({}).items())
        print(f"{method.name:<20} {method.summary}")
        print(f"{'':<20} {{{parameters}}}")


def inspect(arguments: argparse.Namespace) -> None:
    """Print whether experts would merge; refuse when one would not."""
    from wildmerge.checkpoints.inspection import inspect, render

    rows = inspect(arguments.base, arguments.experts)
    print(render(rows))
    refused = [row["refusal"] for row in rows if row["refusal"]]
    if refused:
        raise Refusal(refused[0])
    if arguments.out:
        _write_csv(arguments.out, rows)


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a model folder on tasks and print the scores."""
    from wildmerge.scoring.evaluate import Item, Session
    from wildmerge.study import Benchmark, Evaluation
    from wildmerge.validation import parse

    settings = {"backend": arguments.backend, "dtype": arguments.dtype}
    evaluation = parse(Evaluation, settings, "options")
    shared = {
        "metric": arguments.metric,
        "num_fewshot": arguments.num_fewshot,
        "limit": arguments.limit,
    }
    tasks = arguments.tasks.split(",")
    benchmarks = [parse(Benchmark, {"task": task, **shared}, "options") for task in tasks]
    if not (arguments.model / "config.json").exists():
        raise Refusal(f"{arguments.model}: no model folder (config.json is missing)")
    session = Session(
        tasks,
        evaluation,
        tasks_dir=arguments.tasks_dir,
        task_data=arguments.task_data,
        device=_device(arguments.device),
    )
    items = [Item(b, "", arguments.out / f"{b.task}.json") for b in benchmarks]
    session.score(arguments.model, items)
    for item in items:
        result = json.loads(item.path.read_text())
        print(
            f"{result['task']:<24} {result['metric']} {result['score']:.4f} "
            f"+- {result['stderr']:.4f} (chance {result['chance']:.2f}, {result['n']} items)"
        )


def lock(arguments: argparse.Namespace) -> None:
    """Write the lock beside a study."""
    from wildmerge.lock import Lock, lock_path, make_lock
    from wildmerge.scoring.task_sources import check_benchmarks
    from wildmerge.study import load_study

    study = load_study(arguments.study)
    check_benchmarks(study, str(arguments.study))
    path = lock_path(arguments.study)
    lock = make_lock(study, Lock.read(path) if path.exists() else None)
    lock.write(path)
    print(f"{path}: {len(lock.checkpoints)} checkpoints, {len(lock.tasks)} benchmarks")


def recipes(arguments: argparse.Namespace) -> None:
    """Write a study's recipes.csv and benchmarks.csv."""
    from wildmerge.models import list_models, list_tests

    study, lock = _load(arguments.study)
    folder = arguments.results / study.name
    _write_csv(folder / "recipes.csv", [model.row() for model in list_models(study, lock)])
    tests = [
        {
            **test.benchmark.model_dump(),
            "label": test.benchmark.label or test.benchmark.task,
            "evaluation_id": test.id,
        }
        for test in list_tests(study, lock)
    ]
    _write_csv(folder / "benchmarks.csv", tests)


def spectra(arguments: argparse.Namespace) -> None:
    """Store an expert's singular vectors."""
    from wildmerge.spectra import compute

    device = _device(arguments.device)
    compute(
        arguments.base, arguments.expert, arguments.out, device=device, threads=arguments.threads
    )


def run(arguments: argparse.Namespace) -> None:
    """Make and score the models of one job."""
    from wildmerge.files import write_json
    from wildmerge.run import find_job, run_job

    study, lock = _load(arguments.study)
    job = find_job(study, lock, arguments.job)
    run_job(
        study,
        lock,
        job,
        arguments.results,
        scratch=arguments.scratch,
        device=_device(arguments.device),
        threads=arguments.threads,
    )
    if arguments.done:
        write_json(arguments.done, {"job": job.label, "models": [m.id for m in job.models]})


def aggregate(arguments: argparse.Namespace) -> None:
    """Make the tables of a study."""
    from wildmerge.reporting.tables import aggregate

    print(f"tables: {aggregate(arguments.results, arguments.study)}")


def figures(arguments: argparse.Namespace) -> None:
    """Draw the figures of a study."""
    from wildmerge.reporting.figures import draw_figures

    print(f"figures: {len(draw_figures(arguments.tables, arguments.out))} files in {arguments.out}")


def report(arguments: argparse.Namespace) -> None:
    """Write the report of a study."""
    from wildmerge.reporting.report import write_report

    write_report(arguments.tables, arguments.figures, arguments.out, arguments.study)
    print(f"report: {arguments.out}")


def schema(arguments: argparse.Namespace) -> None:
    """Print the JSON schema of study files."""
    del arguments
    from wildmerge.study import json_schema

    print(json.dumps(json_schema(), indent=2, sort_keys=True))


def _device(name: str) -> str:
    """Turn "auto" into the device at hand and refuse one that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise Refusal(f"--device {name}: torch sees no GPU here; choose cpu")
    return name


def _load(study_file: Path):  # noqa: ANN202 - (Study, Lock), imported late
    from wildmerge.lock import Lock, lock_path
    from wildmerge.study import load_study

    return load_study(study_file), Lock.read(lock_path(study_file))


def _write_csv(path: Path, rows: list[dict]) -> None:
    from wildmerge.files import write_atomically

    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())
