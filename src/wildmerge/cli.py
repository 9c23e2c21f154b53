"""The command line: every stage of a study as a sub-command, each a thin call of one function.

Exit code 0 on success, 1 on a refusal (one line on stderr: what, where, what to do), 2 on wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from wildmerge import commands as do
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
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
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
        _add_spectra,
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
    command.set_defaults(function=do.merge)


def _add_methods(commands: Commands) -> None:
    command = commands.add_parser("methods", help="list the merge methods and their defaults")
    command.set_defaults(function=do.methods)


def _add_inspect(commands: Commands) -> None:
    command = commands.add_parser("inspect", help="would these experts merge with this base?")
    command.add_argument("base", metavar="BASE")
    command.add_argument("experts", metavar="EXPERT", nargs="+")
    command.add_argument("--out", type=Path, help="also write the table as CSV")
    command.set_defaults(function=do.inspect)


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
    command.set_defaults(function=do.evaluate)


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("study", metavar="STUDY.yaml", type=Path)


def _add_lock(commands: Commands) -> None:
    command = commands.add_parser("lock", help="pin a study's checkpoints and data by their bytes")
    _add_study(command)
    command.set_defaults(function=do.lock)


def _add_recipes(commands: Commands) -> None:
    command = commands.add_parser("recipes", help="write recipes.csv and benchmarks.csv of a study")
    _add_study(command)
    command.add_argument("--results", type=Path, default=Path("results"))
    command.set_defaults(function=do.recipes)


def _add_spectra(commands: Commands) -> None:
    command = commands.add_parser("spectra", help="store an expert's singular vectors for TSV-M")
    command.add_argument("base", metavar="BASE")
    command.add_argument("expert", metavar="EXPERT")
    command.add_argument("--out", required=True, type=Path, help="a .safetensors file")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.add_argument("--threads", type=int, default=1)
    command.set_defaults(function=do.spectra)


def _add_run(commands: Commands) -> None:
    command = commands.add_parser("run", help="merge and score the models of one job of a study")
    _add_study(command)
    command.add_argument("--job", required=True, help="its id, as the workflow names it")
    command.add_argument("--results", type=Path, default=Path("results"))
    command.add_argument("--scratch", type=Path, help="for merged weights; default in the results")
    command.add_argument("--device", default="auto", help=DEVICE_HELP)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--done", type=Path, help="write this file when all is done")
    command.set_defaults(function=do.run)


def _add_aggregate(commands: Commands) -> None:
    command = commands.add_parser("aggregate", help="make the tables of a study from its results")
    command.add_argument("--study", required=True, help="name of the study")
    command.add_argument("--results", type=Path, default=Path("results"))
    command.set_defaults(function=do.aggregate)


def _add_figures(commands: Commands) -> None:
    command = commands.add_parser("figures", help="draw the figures of a study from its tables")
    command.add_argument("tables", type=Path)
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(function=do.figures)


def _add_report(commands: Commands) -> None:
    command = commands.add_parser("report", help="write the self-contained HTML report of a study")
    command.add_argument("tables", type=Path)
    command.add_argument("--figures", required=True, type=Path)
    command.add_argument("--study", required=True, help="name of the study")
    command.add_argument("--out", required=True, type=Path)
    command.set_defaults(function=do.report)


def _add_schema(commands: Commands) -> None:
    command = commands.add_parser("schema", help="print the JSON schema of study files")
    command.set_defaults(function=do.schema)


if __name__ == "__main__":
    sys.exit(main())
