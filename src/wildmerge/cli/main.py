"""The command line: every command a typed function of its group's file, with its help beside it.

Exit code 0 on success; 1 on a refusal (one line on stderr: what, where, what to do), also of an option's
value; 2 on wrong usage (a command or an option that is unknown or missing); 130 when interrupted.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from wildmerge.cli import single_models, study, workflow
from wildmerge.cli.interrupts import stop_on_signals
from wildmerge.errors import Refusal, one_line

EXAMPLES = """Examples:

$ wildmerge plan config/demo.yaml

$ snakemake --config study=config/demo.yaml

$ wildmerge merge recipe.yaml --out merged/

$ wildmerge evaluate merged/ --tasks arc_easy,piqa --out scores/
"""


class _Commands(TyperGroup):
    """The commands; what stops one of them becomes a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            super().invoke(ctx)
            sys.stdout.flush()
        except Refusal as refusal:
            _fail(str(refusal), 1)
        except KeyboardInterrupt:
            _fail("interrupted; run the same command again to go on", 130)
        except BrokenPipeError:  # the reader of our output has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"{where}{error.strerror or error}", 1)


app = typer.Typer(
    name="wildmerge",
    cls=_Commands,
    help="If I merge these fine-tuned LLMs, do I get something better?",
    epilog=EXAMPLES,
    invoke_without_command=True,
    rich_markup_mode="rich",
)
for group in (study.commands, single_models.commands, workflow.commands):
    app.registered_commands += group.registered_commands


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"wildmerge {version('wildmerge')}")
        raise typer.Exit


@app.callback()
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, or raises SystemExit with 2 on wrong usage."""
    stop_on_signals()
    arguments = sys.argv[1:] if arguments is None else arguments
    for argument in arguments:
        _check_text(argument)
    command = typer.main.get_command(app)
    try:
        return command.main(arguments, prog_name="wildmerge", standalone_mode=False) or 0
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "wildmerge"
        print(one_line(f"{path}: {error.format_message()} (see `{path} --help`)"), file=sys.stderr)
        if type(error) is typer.BadParameter:  # not the kinds of it that say what is missing
            return 1
        sys.exit(error.exit_code)


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


def _check_text(argument: str) -> None:
    """Leave with 2 for an argument that is empty, which would name the current folder, or no text."""
    if not argument.strip():
        print(
            "wildmerge: an argument is empty; is a variable of the shell not set?", file=sys.stderr
        )
        sys.exit(2)
    try:
        argument.encode()
    except UnicodeEncodeError:  # YAML, JSON and CSV cannot hold such a name
        print(f"wildmerge: {one_line(argument)}: not valid UTF-8; rename it", file=sys.stderr)
        sys.exit(2)


def _fail(message: str, code: int) -> NoReturn:
    print(f"wildmerge: {one_line(message)}", file=sys.stderr)
    raise typer.Exit(code)
