"""Commands that the workflow's rules call: jobs, tables, figures, report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from wildmerge.cli.options import (
    RESULTS,
    Bases,
    Device,
    Done,
    Limit,
    Results,
    StudyFile,
    StudyName,
    Tables,
    Threads,
    names,
)
from wildmerge.errors import Refusal

commands = typer.Typer()
PANEL = "Inside the workflow"


@commands.command(rich_help_panel=PANEL)
def recipes(
    study: StudyFile, bases: Bases = None, limit: Limit = None, results: Results = RESULTS
) -> None:
    """Write recipes.csv, benchmarks.csv, methods.csv, checkpoints.csv and choices.csv of a study."""
    from importlib import metadata

    from wildmerge.cli.printing import write_csv
    from wildmerge.planning.claims import claim_results
    from wildmerge.planning.models import list_evaluations, list_models
    from wildmerge.planning.opening import open_study
    from wildmerge.planning.sources import list_sources

    opened = open_study(study, names(bases), limit)
    claim_results(opened.study.name, study, results)
    folder = results / opened.study.name
    models = list_models(opened.study, opened.lock)
    write_csv(folder / "recipes.csv", [model.row() for model in models])
    benchmarks = [
        {**e.benchmark.model_dump(), "label": e.benchmark.name, "evaluation_id": e.id}
        for e in list_evaluations(opened.study, opened.lock)
    ]
    write_csv(folder / "benchmarks.csv", benchmarks)
    described = {v.method.name: v.method.row() for v in opened.study.variants}
    write_csv(folder / "methods.csv", list(described.values()))
    write_csv(folder / "checkpoints.csv", list(list_sources(opened.study, opened.lock)))
    chosen = {"seed": opened.study.seed, "wildmerge": metadata.version("wildmerge")}
    rows = [{"name": name, "value": value} for name, value in chosen.items()]
    write_csv(folder / "choices.csv", rows)


@commands.command(rich_help_panel=PANEL)
def spectra(
    base: Annotated[str, typer.Argument(metavar="BASE")],
    expert: Annotated[str, typer.Argument(metavar="EXPERT")],
    out: Annotated[Path, typer.Option(help="A .safetensors file.")],
    device: Device = "auto",
    threads: Threads = 1,
) -> None:
    """Store an expert's singular vectors, for methods that read them."""
    from wildmerge.hub.references import folder_of
    from wildmerge.jobs.devices import choose
    from wildmerge.merging.spectra import compute

    compute(folder_of(base), folder_of(expert), out, device=choose(device), threads=threads)


@commands.command(rich_help_panel=PANEL)
def geometry(
    study: StudyFile,
    base: Annotated[str, typer.Argument(metavar="BASE", help="Its name in the study.")],
    out: Annotated[Path, typer.Option(help="A CSV file.")],
    threads: Threads = 1,
) -> None:
    """Measure the task vectors of one of a study's bases: norms, cosines, signs, ranks, subspaces."""
    import math

    from wildmerge.cli.printing import write_csv
    from wildmerge.merging.geometry import geometry
    from wildmerge.planning.opening import open_study

    opened = open_study(study, [base])
    ((_, members),) = opened.study.bases.items()
    folder_of = opened.lock.folder
    rows = geometry(
        folder_of(members.checkpoint),
        {expert: folder_of(reference) for expert, reference in members.experts.items()},
        untie=opened.study.untie,
        threads=threads,
    )
    write_csv(out, [r | {"number": "" if math.isnan(r["number"]) else r["number"]} for r in rows])


@commands.command(rich_help_panel=PANEL)
def run(
    study: StudyFile,
    *,
    job: Annotated[str, typer.Option(help="Its id, as the workflow names it.")],
    bases: Bases = None,
    limit: Limit = None,
    results: Results = RESULTS,
    scratch: Annotated[
        str | None,
        typer.Option(
            envvar="WILDMERGE_SCRATCH",
            show_default="in the results",
            help="For merged weights; may name variables of the node as '$SLURM_TMPDIR'.",
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = 1,
    done: Done = None,
) -> None:
    """Merge and score the models of one job of a study."""
    from wildmerge.jobs.devices import choose
    from wildmerge.jobs.run import find_job, run_job
    from wildmerge.planning.claims import claim_results
    from wildmerge.planning.opening import open_study
    from wildmerge.storage.files import write_json

    opened = open_study(study, names(bases), limit)
    claim_results(opened.study.name, study, results)
    found = find_job(opened.study, opened.lock, job)
    run_job(
        opened.study,
        opened.lock,
        found,
        results,
        scratch=_scratch(scratch),
        device=choose(device),
        threads=threads,
    )
    if done:
        models = [model.recipe_id for model in found.models]
        write_json(done, {"job": found.label, "models": models})


@commands.command(rich_help_panel=PANEL)
def aggregate(
    study: StudyName,
    results: Results = RESULTS,
    published: Annotated[
        Path | None, typer.Option(help="CSV of published numbers to compare with.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse while a result is missing; default: show gaps.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder.", show_default="tables/ of the study's results")
    ] = None,
) -> None:
    """Make the tables of a study from its results."""
    from wildmerge.reporting.tables.study import aggregate

    print(f"tables: {aggregate(results, study, published, strict=strict, out=out)}")


@commands.command(rich_help_panel=PANEL)
def figures(tables: Tables, out: Annotated[Path, typer.Option(help="Folder.")]) -> None:
    """Draw the figures of a study from its tables."""
    from wildmerge.reporting.figures.study import draw_figures

    print(f"figures: {len(draw_figures(tables, out))} files in {out}")


@commands.command(rich_help_panel=PANEL)
def notebook(
    source: Annotated[Path, typer.Argument(metavar="NOTEBOOK", help="The notebook to execute.")],
    tables: Tables,
    out: Annotated[Path, typer.Option(help="The executed notebook.")],
) -> None:
    """Execute a notebook on the tables of a study."""
    from wildmerge.reporting.notebook import execute_notebook

    print(f"notebook: {execute_notebook(source, tables, out)}")


@commands.command(rich_help_panel=PANEL)
def report(
    tables: Tables,
    figures: Annotated[Path, typer.Option(help="Folder of its figures.")],
    study: StudyName,
    out: Annotated[Path, typer.Option(help="The HTML file.")],
    title: Annotated[str | None, typer.Option(help="Headline; default a general one.")] = None,
) -> None:
    """Write the self-contained HTML report of a study."""
    from wildmerge.reporting.report.study import write_report

    write_report(tables, figures, out, study, title)
    print(f"report: {out}")


def _scratch(named: str | None) -> Path | None:
    """Return the scratch folder, with this machine's environment variables in its name."""
    if not named:
        return None
    folder = os.path.expandvars(named)
    if "$" in folder:
        raise Refusal(f"--scratch {named}: not set on {os.uname().nodename}; name another folder")
    return Path(folder)
