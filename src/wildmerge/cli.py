"""The command line: every stage of a study as a sub-command, each a thin call of one function.

Exit code 0 on success, 1 on a refusal (one line on stderr: what, where, what to do), 2 on wrong usage.
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

DEVICE_HELP = "cpu, cuda, cuda:i or auto (default: a GPU where there is one)"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.function(arguments)
    except Refusal as refusal:
        print(f"wildmerge: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wildmerge: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"wildmerge: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wildmerge", description="If I merge these fine-tuned LLMs, do I get something better?"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_merge,
        _add_methods,
        _add_inspect,
        _add_evaluate,
        _add_lock,
        _add_recipes,
        _add_run,
        _add_aggregate,
        _add_figures,
        _add_report,
        _add_schema,
    ):
        add(commands)
    return parser


Commands = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add_merge(commands: Commands) -> None:
    command = commands.add_parser("merge", help="merge experts into their base by a recipe")
    command.add_argument("recipe", metavar="RECIPE.yaml", help="base, experts, method, parameters")
    command.add_argument("--out", required=True, type=Path, help="folder of the merged model")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.add_argument("--threads", type=int, default=None, help="default: all CPUs")
    command.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    command.set_defaults(function=_merge)


def _merge(arguments: argparse.Namespace) -> None:
    import os

    from wildmerge import methods
    from wildmerge.recipe import Recipe
    from wildmerge.validation import parse, read_yaml

    recipe = parse(Recipe, read_yaml(arguments.recipe), arguments.recipe)
    if recipe.method is not None:
        methods.get(recipe.method).complete(recipe.parameters)
    if arguments.out.exists() and not arguments.overwrite:
        raise Refusal(f"{arguments.out}: exists; give --overwrite or choose another --out")
    from wildmerge.merge import merge

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


def _add_methods(commands: Commands) -> None:
    command = commands.add_parser("methods", help="list the merge methods and their defaults")
    command.set_defaults(function=_methods)


def _methods(arguments: argparse.Namespace) -> None:
    del arguments
    from wildmerge import methods

    for method in methods.discover().values():
        parameters = ", ".join(f"{k}: {json.dumps(v)}" for k, v in method.complete({}).items())
        print(f"{method.name:<20} {method.summary}")
        print(f"{'':<20} {{{parameters}}}")


def _add_inspect(commands: Commands) -> None:
    command = commands.add_parser("inspect", help="would these experts merge with this base?")
    command.add_argument("base", metavar="BASE")
    command.add_argument("experts", metavar="EXPERT", nargs="+")
    command.add_argument("--out", type=Path, help="also write the table as CSV")
    command.set_defaults(function=_inspect)


def _inspect(arguments: argparse.Namespace) -> None:
    from wildmerge.checkpoints.inspection import inspect, render

    rows = inspect(arguments.base, arguments.experts)
    print(render(rows))
    refused = [row["refusal"] for row in rows if row["refusal"]]
    if refused:
        raise Refusal(refused[0])
    if arguments.out:
        _write_csv(arguments.out, rows)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="score a model folder on benchmarks")
    command.add_argument("model", metavar="MODEL", type=Path)
    command.add_argument("--tasks", required=True, help="lm-eval tasks, separated by commas")
    command.add_argument("--tasks-dir", help="folder of own task YAMLs")
    command.add_argument("--task-data", help="folder <task>/<split>.jsonl for stock tasks")
    command.add_argument("--limit", type=int, help="first items only")
    command.add_argument("--num-fewshot", type=int, help="default: each task's own")
    command.add_argument("--metric", default="acc", help="acc, acc_norm, ...")
    command.add_argument("--backend", default="prefix", help="prefix or hf")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto")
    command.add_argument("--out", required=True, type=Path, help="folder of the result files")
    command.set_defaults(function=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
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


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", metavar="STUDY.yaml", type=Path)


def _add_lock(commands: Commands) -> None:
    command = commands.add_parser("lock", help="pin a study's checkpoints and data by their bytes")
    _add_study(command)
    command.set_defaults(function=_lock)


def _lock(arguments: argparse.Namespace) -> None:
    from wildmerge.lock import Lock, lock_path, make_lock
    from wildmerge.scoring.task_sources import check_benchmarks
    from wildmerge.study import load_study

    study = load_study(arguments.study)
    check_benchmarks(study, str(arguments.study))
    path = lock_path(arguments.study)
    lock = make_lock(study, Lock.read(path) if path.exists() else None)
    lock.write(path)
    print(f"{path}: {len(lock.checkpoints)} checkpoints, {len(lock.tasks)} benchmarks")


def _add_recipes(commands: Commands) -> None:
    command = commands.add_parser("recipes", help="write recipes.csv and benchmarks.csv of a study")
    _add_study(command)
    command.add_argument("--results", type=Path, default=Path("results"))
    command.set_defaults(function=_recipes)


def _recipes(arguments: argparse.Namespace) -> None:
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


def _add_run(commands: Commands) -> None:
    command = commands.add_parser("run", help="merge and score the models of one job of a study")
    _add_study(command)
    command.add_argument("--job", required=True, help="its id, as the workflow names it")
    command.add_argument("--results", type=Path, default=Path("results"))
    command.add_argument("--scratch", type=Path, help="for merged weights; default in the results")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--done", type=Path, help="write this file when all is done")
    command.set_defaults(function=_run)


def _run(arguments: argparse.Namespace) -> None:
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


def _add_aggregate(commands: Commands) -> None:
    command = commands.add_parser("aggregate", help="make the tables of a study from its results")
    command.add_argument("--study", required=True, help="name of the study")
    command.add_argument("--results", type=Path, default=Path("results"))
    command.set_defaults(function=_aggregate)


def _aggregate(arguments: argparse.Namespace) -> None:
    from wildmerge.tables import aggregate

    print(f"tables: {aggregate(arguments.results, arguments.study)}")


def _add_figures(commands: Commands) -> None:
    command = commands.add_parser("figures", help="draw the figures of a study from its tables")
    command.add_argument("tables", type=Path)
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(function=_figures)


def _figures(arguments: argparse.Namespace) -> None:
    from wildmerge.figures import draw_figures

    print(f"figures: {len(draw_figures(arguments.tables, arguments.out))} files in {arguments.out}")


def _add_report(commands: Commands) -> None:
    command = commands.add_parser("report", help="write the self-contained HTML report of a study")
    command.add_argument("tables", type=Path)
    command.add_argument("--figures", required=True, type=Path)
    command.add_argument("--study", required=True, help="name of the study")
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(function=_report)


def _report(arguments: argparse.Namespace) -> None:
    from wildmerge.report import write_report

    write_report(arguments.tables, arguments.figures, arguments.out, arguments.study)
    print(f"report: {arguments.out}")


def _add_schema(commands: Commands) -> None:
    command = commands.add_parser("schema", help="print the JSON schema of study files")
    command.set_defaults(function=_schema)


def _schema(arguments: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
