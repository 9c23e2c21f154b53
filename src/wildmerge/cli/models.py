"""Sub-commands on checkpoints and single models; none needs a study."""

from __future__ import annotations

import argparse
import json
import sys

from wildmerge.cli.printing import tell
from wildmerge.errors import Refusal


def merge(arguments: argparse.Namespace) -> None:
    """Merge the recipe into a model folder."""
    import os

    from wildmerge.hub.references import folder_of
    from wildmerge.jobs.devices import choose
    from wildmerge.merging.merge import merge, require_mergeable
    from wildmerge.merging.mergekit_config import is_mergekit, to_recipe
    from wildmerge.study.recipe import Recipe
    from wildmerge.validation import parse, read_yaml

    content, where = read_yaml(arguments.recipe), arguments.recipe
    recipe = to_recipe(content, where) if is_mergekit(content) else parse(Recipe, content, where)
    if arguments.out.exists() and not arguments.overwrite:
        raise Refusal(f"{arguments.out}: exists; give --overwrite or choose another --out")
    folders = {name: folder_of(name) for name in (recipe.base, *recipe.experts)}
    require_mergeable(recipe, folders)  # before torch is imported, which takes seconds
    threads = arguments.threads or os.cpu_count() or 1
    report = merge(
        recipe,
        arguments.out,
        folders=folders,
        device=choose(arguments.device),
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
    from wildmerge.methods import catalogue as methods

    for method in methods.discover().values():
        parameters = ", ".join(f"{k}: {json.dumps(v)}" for k, v in method.complete({}).items())
        print(f"{method.name:<20} {method.summary}")
        print(f"{'':<20} {{{parameters}}}")


def inspect(arguments: argparse.Namespace) -> None:
    """Print whether experts would merge; refuse when one would not."""
    from wildmerge.hub.references import folder_of, is_here
    from wildmerge.merging.inspection import Inspection, inspect, unmeasured
    from wildmerge.planning.admission import predict_refusals

    if all(is_here(name) for name in (arguments.base, *arguments.experts)):
        experts = {expert: folder_of(expert) for expert in arguments.experts}
        found = inspect(folder_of(arguments.base), experts, untie=arguments.untie)
    else:
        why = predict_refusals(arguments.base, arguments.experts)
        found = Inspection(
            [unmeasured(e, "no" if e in why else "yes", why.get(e, "")) for e in arguments.experts]
        )
        print("not all fetched: told without weights; `wildmerge fetch` for more", file=sys.stderr)
    tell(found, arguments.out)


def spectra(arguments: argparse.Namespace) -> None:
    """Store an expert's singular vectors."""
    from wildmerge.hub.references import folder_of
    from wildmerge.jobs.devices import choose
    from wildmerge.merging.spectra import compute

    base, expert = (str(folder_of(name)) for name in (arguments.base, arguments.expert))
    device = choose(arguments.device)
    compute(base, expert, arguments.out, device=device, threads=arguments.threads)


def evaluate(arguments: argparse.Namespace) -> None:
    """Score a model folder on tasks and print the scores."""
    from wildmerge.jobs.devices import choose
    from wildmerge.scoring.progress import RequestsBar
    from wildmerge.scoring.session import Session
    from wildmerge.study.evaluation import Evaluation
    from wildmerge.study.file import Benchmark, EvaluationSettings
    from wildmerge.validation import parse

    settings = {"backend": arguments.backend, "dtype": arguments.dtype}
    evaluation = parse(EvaluationSettings, settings, "options")
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
        device=choose(arguments.device),
    )
    files = {arguments.out / f"{b.task}.json": Evaluation(b, "") for b in benchmarks}
    missing = [e.benchmark for file, e in files.items() if not file.exists()]
    with RequestsBar(arguments.model.name, missing) as bar:
        session.score(arguments.model, files, on_built=bar.expect, on_scored=bar.update)
    for file in files:
        result = json.loads(file.read_text())
        print(
            f"{result['task']:<24} {result['metric']} {result['score']:.4f} "
            f"+- {result['stderr']:.4f} (chance {result['chance']:.2f}, {result['n']} items)"
        )
