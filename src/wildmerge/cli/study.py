"""Commands for your study: what it costs, its lock, what it downloads, how far it is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from wildmerge.cli.options import RESULTS, Bases, Done, Limit, Results, StudyFile, names

commands = typer.Typer()
PANEL = "Your study"


@commands.command(rich_help_panel=PANEL, epilog="$ wildmerge plan mine.yaml --gpu H200 --slots 8")
def plan(
    study: StudyFile,
    *,
    bases: Bases = None,
    limit: Limit = None,
    results: Results = RESULTS,
    gpu: Annotated[str, typer.Option(help="A100, H100, H200, B200, L40S or L4.")] = "H100",
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="The part of the GPU's peak that is reached.")
    ] = 0.4,
    slots: Annotated[int, typer.Option(min=1, help="Jobs that run at the same time.")] = 1,
) -> None:
    """Print what a study costs, before anything runs."""
    from wildmerge.planning.lock import Lock, lock_path
    from wildmerge.planning.opening import read_study
    from wildmerge.planning.plan import plan

    opened, path = read_study(study, names(bases), limit), lock_path(study)
    lock = Lock.read(path) if path.exists() else None
    print(plan(opened, lock, results, gpu=gpu, share=share, slots=slots))


@commands.command(rich_help_panel=PANEL)
def lock(
    study: StudyFile,
    bases: Bases = None,
    limit: Limit = None,
    update: Annotated[bool, typer.Option("--update", help="Look up hub checkpoints anew.")] = False,
) -> None:
    """Pin a study's checkpoints and benchmark data by their bytes, in STUDY.lock.json beside it."""
    from wildmerge.planning.lock import lock_path
    from wildmerge.planning.opening import lock_study

    opened = lock_study(study, names(bases), limit, update=update)
    for line in opened.lines():
        print(line, file=sys.stderr)
    path, lock = lock_path(study), opened.lock
    print(f"{path}: {len(lock.checkpoints)} checkpoints, {len(lock.tasks)} benchmarks")


@commands.command(
    rich_help_panel=PANEL,
    epilog="$ wildmerge fetch mine.yaml\n\n$ wildmerge fetch mine.yaml data\n\n"
    "$ wildmerge fetch meta-llama/Llama-3.2-3B-Instruct",
)
def fetch(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="STUDY.yaml [NAME...] | ORG/NAME[@REVISION]...",
            help="A study (all of it, or the named checkpoints, and 'data'), or hub checkpoints.",
        ),
    ],
    bases: Bases = None,
    done: Done = None,
) -> None:
    """Download what a study needs, or hub checkpoints."""
    from wildmerge.planning import fetch
    from wildmerge.storage.files import write_json

    if what[0].endswith((".yaml", ".yml")):
        fetched = fetch.fetch_study(what[0], what[1:], names(bases))
    else:
        fetched = fetch.fetch_references(what)
    for name, place in fetched.items():
        print(f"{name}: {place}")
    if done:
        write_json(done, fetched)


@commands.command(rich_help_panel=PANEL)
def status(
    study: StudyFile, bases: Bases = None, limit: Limit = None, results: Results = RESULTS
) -> None:
    """Print what of a study is done, running, failed and left."""
    from wildmerge.jobs.status import describe
    from wildmerge.planning.claims import claim_results
    from wildmerge.planning.opening import changes_of, open_study

    opened = open_study(study, names(bases), limit)
    claim_results(opened.study.name, study, results, write=False)
    print(describe(opened.study, opened.lock, results))
    for line in changes_of(study, names(bases), limit):
        print(f"changed  {line} since it was locked; the next run of snakemake renews the lock")


@commands.command(
    rich_help_panel=PANEL,
    epilog="$ wildmerge export mine.yaml --out items/\n\n"
    "$ wildmerge export mine --format parquet --out items/",
)
def export(
    study: Annotated[
        str, typer.Argument(metavar="STUDY", help="The study file, or the study's name.")
    ],
    *,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    format: Annotated[  # the option's name
        Literal["samples", "csv", "parquet"],
        typer.Option(help="lm-eval's samples files, or one long table."),
    ] = "samples",
    results: Results = RESULTS,
) -> None:
    """Write the items of a study's results for other tools: who answered what, and how surely."""
    from wildmerge.reporting.export import export
    from wildmerge.study.file import load_study

    name = load_study(Path(study)).name if study.endswith((".yaml", ".yml")) else study
    written, lacking = export(results, name, format, out)
    if lacking:
        print(f"remark: models that lack results: {lacking}", file=sys.stderr)
    print(f"{out}: items of {written} models")


@commands.command(rich_help_panel=PANEL)
def schema() -> None:
    """Print the JSON schema of study files, for editors."""
    from wildmerge.study.file import json_schema

    print(json.dumps(json_schema(), indent=2, sort_keys=True))


@commands.command("inspect-study", rich_help_panel=PANEL)
def inspect_study(
    study: StudyFile,
    base: Annotated[str, typer.Argument(metavar="BASE", help="Its name in the study.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write the table as CSV, NAME+cosines.csv beside it.")
    ] = None,
) -> None:
    """Print whether the experts of one of a study's bases merge; exit with 1 when one does not."""
    from wildmerge.cli.printing import report_inspection
    from wildmerge.merging.inspection import inspect, unmeasured
    from wildmerge.planning.opening import open_study, require_chat_templates

    opened = open_study(study, [base])
    require_chat_templates(opened)
    ((name, members),) = opened.study.bases.items()
    folder_of = opened.lock.folder
    experts = {expert: folder_of(reference) for expert, reference in members.experts.items()}
    found = inspect(folder_of(members.checkpoint), experts, untie=opened.study.untie)
    skipped = opened.skipped[name].items()
    found.rows.extend(unmeasured(expert, "skipped", why) for expert, why in skipped)
    report_inspection(found, out)
