"""Commands on checkpoints and single models; none needs a study."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from wildmerge.cli.options import Device, names
from wildmerge.errors import Refusal

commands = typer.Typer()
PANEL = "Single models"


@commands.command(
    rich_help_panel=PANEL,
    epilog="$ wildmerge merge recipe.yaml --out merged/\n\n"
    "recipe.yaml: {base: checkpoints/base, experts: (checkpoints/math, checkpoints/code), "
    "method: ties, parameters: {density: 0.2}}",
)
def merge(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE.yaml", help="Base, experts, method, parameters; or mergekit's YAML."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the merged model.")],
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of threads.", show_default="all CPUs")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing --out.")
    ] = False,
) -> None:
    """Merge experts into their base by a recipe; writes a complete Hugging Face model folder."""
    import os

    from wildmerge.hub.references import folder_of
    from wildmerge.jobs.devices import choose
    from wildmerge.merging.merge import merge, require_mergeable
    from wildmerge.merging.mergekit_config import is_mergekit, to_recipe
    from wildmerge.methods.catalogue import folders_of_environment
    from wildmerge.study.recipe import Recipe
    from wildmerge.validation import parse, read_yaml

    content = read_yaml(recipe)
    given = to_recipe(content, recipe) if is_mergekit(content) else parse(Recipe, content, recipe)
    if out.exists() and not overwrite:
        raise Refusal(f"{out}: exists; give --overwrite or choose another --out")
    folders = {name: folder_of(name) for name in (given.base, *given.experts)}
    own = folders_of_environment()
    require_mergeable(given, folders, own)  # before torch is imported, which takes seconds
    report = merge(
        given,
        out,
        folders=folders,
        device=choose(device),
        threads=threads or os.cpu_count() or 1,
        overwrite=overwrite,
        method_folders=own,
        recipe_file=Path(recipe),
    )
    for remark in report["remarks"]:
        print(f"remark: {remark}", file=sys.stderr)
    for warning in report["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{out}: {given.method} of {len(given.experts)} experts, "
        f"update norm {report['update_norm']:.4g}, {report['seconds']:.1f} s"
    )


@commands.command(
    rich_help_panel=PANEL,
    epilog="$ wildmerge evaluate merged/ --tasks arc_easy,piqa --limit 100 --out scores/",
)
def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model or adapter: a folder or hub id.")
    ],
    *,
    tasks: Annotated[str, typer.Option(metavar="NAME,...", help="Tasks of lm-eval or your own.")],
    out: Annotated[Path, typer.Option(help="Folder of the result files.")],
    tasks_dir: Annotated[str | None, typer.Option(help="Folder of own task YAMLs.")] = None,
    task_data: Annotated[
        str | None, typer.Option(help="Folder of TASK/SPLIT.jsonl for stock tasks.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="First items only.")] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt.", show_default="the task's")
    ] = None,
    metric: Annotated[str, typer.Option(help="acc, acc_norm, ...")] = "acc",
    backend: Annotated[
        Literal["prefix", "hf", "vllm"], typer.Option(help="What computes the scores.")
    ] = "prefix",
    device: Device = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="What the model computes in."),
    ] = "auto",
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Put prompts into the model's chat template.")
    ] = False,
    base: Annotated[
        str | None, typer.Option(help="Of an adapter.", show_default="what the adapter names")
    ] = None,
) -> None:
    """Score a model on benchmarks; an adapter is scored as the model that it makes of its base."""
    from wildmerge.checkpoints.opening import open_weights
    from wildmerge.hub.references import folder_of
    from wildmerge.jobs.devices import choose
    from wildmerge.jobs.single import score_folder
    from wildmerge.merging.whole_model import whole_model
    from wildmerge.scoring.session import Session
    from wildmerge.study.file import Benchmark, EvaluationSettings
    from wildmerge.validation import parse

    options = {"backend": backend, "dtype": dtype, "chat_template": chat_template}
    settings = parse(EvaluationSettings, options, "options")
    shared = {"metric": metric, "num_fewshot": num_fewshot, "limit": limit}
    chosen = names(tasks) or []
    benchmarks = [parse(Benchmark, {"task": task, **shared}, "options") for task in chosen]
    open_weights(folder_of(model))  # a wrong path is refused at once
    session = Session(
        chosen, settings, tasks_dir=tasks_dir, task_data=task_data, device=choose(device)
    )
    session.check(benchmarks)  # before a model is made of an adapter
    with whole_model(model, base, out) as folder:
        scores = score_folder(folder, benchmarks, session, out)
    for score in scores:
        chance = "" if score["chance"] is None else f"chance {score['chance']:.2f}, "
        print(
            f"{score['task']:<24} {score['metric']} {score['score']:.4f} "
            f"+- {score['stderr']:.4f} ({chance}{score['n']} items)"
        )


@commands.command(
    rich_help_panel=PANEL,
    epilog="$ wildmerge compare scores/base scores/merged\n\n"
    "$ wildmerge compare lm_eval_output/org__base lm_eval_output/org__merged --out compared.csv",
)
def compare(
    places: Annotated[
        list[Path],
        typer.Argument(
            metavar="REFERENCE MODEL...",
            help="What `evaluate` wrote to --out, or its evals/NAME; or lm-eval's folder or "
            "results_*.json, with samples.",
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(help="As acc_norm, or exact_match,strict-match.", show_default="acc"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Also write the comparisons as CSV.")] = None,
) -> None:
    """Compare models with the first one, item by item, where all answered the same items."""
    from wildmerge.reporting.pairs import compare_results, render
    from wildmerge.storage.files import write_atomically

    compared, remarks = compare_results(places, metric)
    for remark in remarks:
        print(f"remark: {remark}", file=sys.stderr)
    print(render(compared))
    if out:
        write_atomically(out, compared.to_csv(index=False, lineterminator="\n"))


@commands.command(
    rich_help_panel=PANEL, epilog="$ wildmerge inspect checkpoints/base checkpoints/*-expert"
)
def inspect(
    base: Annotated[str, typer.Argument(metavar="BASE", help="A folder or hub id.")],
    experts: Annotated[list[str], typer.Argument(metavar="EXPERT...", help="Likewise.")],
    untie: Annotated[bool, typer.Option("--untie", help="As untie: true in a recipe.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Also write the table as CSV, NAME+cosines.csv beside it.")
    ] = None,
) -> None:
    """Print whether experts would merge with a base; exit with 1 when one would not."""
    from wildmerge.cli.printing import report_inspection
    from wildmerge.hub.references import folder_of, is_here
    from wildmerge.merging.inspection import Inspection, inspect, unmeasured
    from wildmerge.planning.admission import predict_refusals

    if all(is_here(name) for name in (base, *experts)):
        folders = {expert: folder_of(expert) for expert in experts}
        found = inspect(folder_of(base), folders, untie=untie)
    else:
        why = predict_refusals(base, experts)
        found = Inspection(
            [unmeasured(e, "no" if e in why else "yes", why.get(e, "")) for e in experts]
        )
        print("not all fetched: judged by headers; `wildmerge fetch` for more", file=sys.stderr)
    report_inspection(found, out)


@commands.command(rich_help_panel=PANEL)
def methods() -> None:
    """List the merge methods, where they come from, and their defaults."""
    from wildmerge.methods.catalogue import discover, folders_of_environment

    for method in discover(folders_of_environment()).values():
        print(method.describe())
