"""The command line: help, wrong usage, refusals, and what it does not load."""

import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from wildmerge.cli.main import app, main

COMMAND = [sys.executable, "-m", "wildmerge"]
HEAVY = ("torch", "transformers", "pandas", "numba", "matplotlib", "lm_eval", "datasets")


def usage_error(capsys, *arguments):
    """Return the one line on stderr with which a command says how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_help_lists_the_commands_by_what_they_are_for():
    shown = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True).stdout
    places = [shown.index(text) for text in ("Your study", "Single models", "Inside the workflow")]
    assert places == sorted(places)
    assert places[0] < shown.index("│ plan ") < places[1] < shown.index("│ merge ") < places[2]
    assert "$ wildmerge merge recipe.yaml --out merged/" in shown


@pytest.mark.parametrize(
    "command", [c.name or c.callback.__name__ for c in app.registered_commands]
)
def test_every_command_explains_itself_and_every_option(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    options = [line for line in shown.stdout.splitlines() if " --" in line and "│" in line]
    assert options
    for line in options:
        assert len(line.strip("│ ").split("  ")[-1]) > 8, line


def test_a_mistyped_command_gets_a_suggestion(capsys):
    assert "Did you mean 'merge'?" in usage_error(capsys, "mrge")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["merge"], "RECIPE.yaml"),
        (["merge", "r.yaml"], "--out"),
        (["plan", "s.yaml", "--slotz", "2"], "--slots"),
        (["methods", "ties"], "ties"),
        (["merge", "", "--out", "m"], "variable"),
        (["plan", "\udcff.yaml"], "UTF-8"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_option(arguments, words, capsys):
    assert words in usage_error(capsys, *arguments)


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("merge r.yaml --out m", "--threads", "0"),
        ("plan s.yaml", "--limit", "0"),
        ("plan s.yaml", "--share", "1.5"),
        ("plan s.yaml", "--share", "half"),
        ("plan s.yaml", "--share", "nan"),
        ("plan s.yaml", "--slots", "many"),
        ("run s.yaml --job j", "--threads", "-1"),
        ("evaluate m --tasks t --out o", "--num-fewshot", "1.5"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_refused(command, option, value, capsys):
    assert main([*command.split(), option, value]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"'{option}'" in line


def test_no_command_at_all_shows_the_help(capsys):
    assert main([]) == 2
    assert "Your study" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["merge", "--help"],
        ["merge", "missing.yaml", "--out", "m"],
        ["plan", "missing.yaml"],
        ["evaluate", "missing", "--tasks", "a", "--out", "o"],
    ],
)
def test_help_and_refusals_load_nothing_heavy(arguments, tmp_path):
    code = (
        "import sys; from wildmerge.cli.main import main; code = main(sys.argv[1:]); "
        f"sys.exit(f'loaded {{m}}' if (m := [m for m in {HEAVY} if m in sys.modules]) else code)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "loaded" not in done.stderr
    assert done.returncode == int("missing" in str(arguments))


def test_help_needs_little_time_of_a_processor(tmp_path):
    """As a share of what `import torch` takes here, so that a slow machine changes nothing."""

    def seconds(*command):
        before = os.times()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        after = os.times()
        return after.children_user - before.children_user

    assert seconds("-m", "wildmerge", "--help") < seconds("-c", "import torch") / 2


def test_a_name_cannot_write_a_second_line_or_steer_the_terminal(capsys):
    assert main(["plan", "a\nb\x1b[31m.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wildmerge: a\\nb\\x1b[31m.yaml: ")


def test_sigterm_ends_a_command_as_an_interrupt_does(tmp_path):
    fifo = tmp_path / "recipe.yaml"
    os.mkfifo(fifo)  # reading it waits until someone writes
    command = [*COMMAND, "merge", str(fifo), "--out", str(tmp_path / "m")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    with open(fifo, "w"):  # opens when the command has opened it
        time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 130
    assert process.stderr.read() == (
        "wildmerge: interrupted; run the same command again to go on\n"
    )


SWALLOWING = """
import signal, sys, time
from wildmerge.cli.interrupts import stop_on_signals

class Slow:
    def __del__(self):  # Python drops what is raised in here
        print("inside", flush=True)
        time.sleep(0.5)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
stop_on_signals()
try:
    Slow()
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_that_falls_into_a_destructor_still_stops_the_program(number):
    command = [sys.executable, "-c", SWALLOWING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"inside\n"
        process.send_signal(number)
        assert process.wait(timeout=30) == 130
        assert process.stderr.read() == b""


def test_a_reader_that_has_seen_enough_is_no_error():
    process = subprocess.Popen([*COMMAND, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""


def test_completion_offers_commands(monkeypatch):
    environment = {**os.environ, "_WILDMERGE_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    environment["COMP_WORDS"] = "wildmerge me"
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["merge", "methods"]
