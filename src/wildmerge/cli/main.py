"""The command line: every stage of a study as a sub-command, each a thin call of one function.

Exit code 0 on success, 1 on a refusal (one line on stderr: what, where, what to do), 2 on wrong usage.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

from wildmerge.cli import models, results, studies
from wildmerge.errors import Refusal


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        arguments.function(arguments)
        sys.stdout.flush()
    except Refusal as refusal:
        print(f"wildmerge: {refusal}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("wildmerge: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"wildmerge: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def run() -> NoReturn:
    """Run the command line as a process of its own, which starts soon and leaves at once.

    Importing torch makes hundreds of thousands of objects that stay; looking for garbage among them
    every 700 takes a tenth of the time. Python's own way out takes torch apart piece by piece, which
    costs half a second that no one needs: what was to be kept is on the disk by then, and the system
    takes the memory back.
    """
    gc.set_threshold(1_000_000, 50, 100)
    code = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _terminate(number: int, frame: FrameType | None) -> None:
    """Stop as Ctrl-C does, so that what was begun is removed; schedulers send SIGTERM, then SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # often sent more than once
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="wildmerge", description="If I merge these fine-tuned LLMs, do I get something better?"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_merge,
        _add_methods,
        _add_inspect,
        _add_gate,
        _add_evaluate,
        _add_plan,
        _add_lock,
        _add_fetch,
        _add_recipes,
        _add_spectra,
        _add_run,
        _add_status,
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
    command.add_argument(
        "recipe",
        metavar="RECIPE.yaml",
        help="base, experts, method, parameters; or mergekit's YAML",
    )
    command.add_argument("--out", required=True, type=Path, help="folder of the merged model")
    _add_device(command)
    command.add_argument("--threads", type=int, default=None, help="default: all CPUs")
    command.add_argument("--overwrite", action="store_true", help="replace an existing --out")
    command.set_defaults(function=models.merge)


def _add_methods(commands: Commands) -> None:
    command = commands.add_parser("methods", help="list the merge methods and their defaults")
    command.set_defaults(function=models.methods)


def _add_inspect(commands: Commands) -> None:
    command = commands.add_parser("inspect", help="would these experts merge with this base?")
    command.add_argument("base", metavar="BASE")
    command.add_argument("experts", metavar="EXPERT", nargs="+")
    command.add_argument("--untie", action="store_true", help="as untie: true in a recipe")
    command.add_argument(
        "--out", type=Path, help="also write the table as CSV, and NAME.cosines.csv beside it"
    )
    command.set_defaults(function=models.inspect)


def _add_gate(commands: Commands) -> None:
    command = commands.add_parser("gate", help="inspect the experts of one of a study's bases")
    command.add_argument("study", metavar="STUDY.yaml", type=Path)
    command.add_argument("bases", metavar="BASE", type=lambda name: [name], help="its name there")
    command.add_argument("--out", type=Path, help="as of inspect")
    command.set_defaults(function=studies.gate, limit=None)


def _add_evaluate(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="score a model folder on benchmarks")
    command.add_argument("model", metavar="MODEL", type=Path)
    command.add_argument("--tasks", required=True, help="lm-eval tasks, separated by commas")
    command.add_argument("--tasks-dir", help="folder of own task YAMLs")
    command.add_argument("--task-data", help="folder <task>/<split>.jsonl for stock tasks")
    command.add_argument("--limit", type=int, help="first items only")
    command.add_argument("--num-fewshot", type=int, help="default: each task's own")
    command.add_argument("--metric", default="acc", help="acc, acc_norm, ...")
    command.add_argument("--backend", default="prefix", help="prefix, hf or vllm")
    _add_device(command)
    command.add_argument("--dtype", default="auto", help="float32, bfloat16, float16 or auto")
    command.add_argument("--out", required=True, type=Path, help="folder of the result files")
    command.set_defaults(function=models.evaluate)


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", metavar="STUDY.yaml", type=Path)
    _add_bases(command)
    command.add_argument("--limit", type=int, help="at most so many items of every benchmark")


def _add_bases(command: argparse.ArgumentParser) -> None:
    names = {"metavar": "NAME,...", "type": lambda text: text.split(",")}
    command.add_argument("--bases", help="these bases of the study only", **names)


def _add_results(command: argparse.ArgumentParser) -> None:
    command.add_argument("--results", type=Path, default=Path("results"), help="their folder")


def _add_device(command: argparse.ArgumentParser) -> None:
    words = "cpu, cuda, cuda:i or auto (default: a GPU where there is one)"
    command.add_argument("--device", default="auto", help=words)


def _add_plan(commands: Commands) -> None:
    command = commands.add_parser("plan", help="print what a study costs, before anything runs")
    _add_study(command)
    _add_results(command)
    command.add_argument("--gpu", default="H100", help="A100, H100, H200, B200, L40S or L4")
    command.add_argument("--share", type=float, default=0.4, help="of the GPU's peak, 0 to 1")
    command.add_argument("--slots", type=int, default=1, help="jobs that run at the same time")
    command.set_defaults(function=studies.plan)


def _add_lock(commands: Commands) -> None:
    command = commands.add_parser("lock", help="pin a study's checkpoints and data by their bytes")
    _add_study(command)
    command.add_argument("--update", action="store_true", help="look up hub checkpoints anew")
    command.set_defaults(function=studies.lock)


def _add_fetch(commands: Commands) -> None:
    command = commands.add_parser("fetch", help="download what a study needs, or hub checkpoints")
    command.add_argument(
        "what",
        nargs="+",
        metavar="STUDY.yaml [NAME...] | ORG/NAME[@REVISION]...",
        help="a study (all of it, or the named checkpoints, and 'data'), or hub checkpoints",
    )
    _add_bases(command)
    command.add_argument("--done", type=Path, help="write this file when all is there")
    command.set_defaults(function=studies.fetch)


def _add_recipes(commands: Commands) -> None:
    command = commands.add_parser("recipes", help="write recipes.csv and benchmarks.csv of a study")
    _add_study(command)
    _add_results(command)
    command.set_defaults(function=studies.recipes)


def _add_spectra(commands: Commands) -> None:
    command = commands.add_parser("spectra", help="store an expert's singular vectors for TSV-M")
    command.add_argument("base", metavar="BASE")
    command.add_argument("expert", metavar="EXPERT")
    command.add_argument("--out", required=True, type=Path, help="a .safetensors file")
    _add_device(command)
    command.add_argument("--threads", type=int, default=1)
    command.set_defaults(function=models.spectra)


def _add_run(commands: Commands) -> None:
    command = commands.add_parser("run", help="merge and score the models of one job of a study")
    _add_study(command)
    command.add_argument("--job", required=True, help="its id, as the workflow names it")
    _add_results(command)
    command.add_argument(
        "--scratch",
        default=os.environ.get("WILDMERGE_SCRATCH"),
        help="for merged weights, may name variables of the node as '$SLURM_TMPDIR'; "
        "default WILDMERGE_SCRATCH, else in the results",
    )
    _add_device(command)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--done", type=Path, help="write this file when all is done")
    command.set_defaults(function=studies.run)


def _add_status(commands: Commands) -> None:
    command = commands.add_parser("status", help="what of a study is done, running, failed, left")
    _add_study(command)
    _add_results(command)
    command.set_defaults(function=studies.status)


def _add_aggregate(commands: Commands) -> None:
    command = commands.add_parser("aggregate", help="make the tables of a study from its results")
    command.add_argument("--study", required=True, help="name of the study")
    _add_results(command)
    command.add_argument("--published", type=Path, help="CSV of published numbers to compare with")
    command.set_defaults(function=results.aggregate)


def _add_figures(commands: Commands) -> None:
    command = commands.add_parser("figures", help="draw the figures of a study from its tables")
    command.add_argument("tables", type=Path)
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(function=results.figures)


def _add_report(commands: Commands) -> None:
    command = commands.add_parser("report", help="write the self-contained HTML report of a study")
    command.add_argument("tables", type=Path)
    command.add_argument("--figures", required=True, type=Path)
    command.add_argument("--study", required=True, help="name of the study")
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(function=results.report)


def _add_schema(commands: Commands) -> None:
    command = commands.add_parser("schema", help="print the JSON schema of study files")
    command.set_defaults(function=studies.schema)
