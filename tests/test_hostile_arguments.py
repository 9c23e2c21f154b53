"""No command ends in a traceback, whatever it is given: one line on stderr, exit code 1 or 2."""

import os

import pytest
import yaml

from mini_study import make_study
from wildmerge.cli.main import main
from wildmerge.planning.opening import lock_study

STUDY, RECIPE = "study.yaml", "recipe.yaml"
BASE, EXPERT = "checkpoints/llama/base", "checkpoints/llama/expert0"
EVALUATE = ["evaluate", BASE, "--tasks", "mini_one", "--tasks-dir", "tasks", "--limit", "2"]
CPU = ["--device", "cpu"]

FILES = {
    "binary": bytes(range(256)) * 16,
    "utf-16": "name: x".encode("utf-16"),
    "nul": b"a\0b: 1",
    "nothing": b"",
    "list": b"[1, 2]",
    "number": b"42",
    "deep": b"[" * 5000,
    "code": b"!!python/object/apply:os.system ['true']",
    "itself": b"a: &a [*a]",
    "twice": b"name: a\nname: b\nbase: a\nbase: b\n",
    "no date": b"base: 2020-13-45\n",
    "numbers as keys": b"1: 2\n3: 4\n",
    "null": b"name: null\nbases: null\nbase: null\nexperts: null\nmethod: null\n",
    "lists for names": b"base: [x]\nexperts: {a: 1}\nmethod: [x]\nname: [x]\nbases: [1]\nsizes: x\n",
    "mergekit": b"merge_method: [ties]\nmodels: {a: 1}\nbase_model: {x: 1}\n",
    "mergekit's list": b"merge_method: ties\nmodels: [1, {model: {a: 1}}]\n",
}
PLACES = {
    "missing": "hostile/missing.yaml",
    "blank": "",
    "space": " ",
    "folder": "hostile/folder.yaml",
    "below a file": "recipe.yaml/x",
    "loop": "hostile/loop.yaml",
    "dangling": "hostile/dangling.yaml",
    "device": "/dev/null",
    "not text": "hostile/\udcff\udcfe.yaml",
    "long": "x" * 5000,
    "lines and colours": "a\nb\x1b[31m\r.yaml",
    "address": "https://example.org/x.yaml",
    "percent": "%s{0}.yaml",
    "traversal": "../../../../../../nowhere",
    "number": "-1",
    "comma": ",",
}
READS = {  # a command, and where the hostile value stands in it
    "merge": ["merge", ..., "--out", "out/merged", *CPU],
    "plan": ["plan", ...],
    "lock": ["lock", ...],
    "fetch": ["fetch", ...],
    "status": ["status", ...],
    "recipes": ["recipes", ...],
    "run": ["run", ..., "--job", "0" * 16],
    "inspect-study": ["inspect-study", ..., "llama"],
    "inspect, base": ["inspect", ..., EXPERT],
    "inspect, expert": ["inspect", BASE, ...],
    "spectra, base": ["spectra", ..., EXPERT, "--out", "out/s.safetensors", *CPU],
    "spectra, expert": ["spectra", BASE, ..., "--out", "out/s.safetensors", *CPU],
    "evaluate": ["evaluate", ..., *EVALUATE[2:], "--out", "out/scores", *CPU],
    "figures": ["figures", ..., "--out", "out/figures"],
    "report": ["report", ..., "--figures", "out", "--study", "mini", "--out", "out/r.html"],
}
NAMES = {  # likewise for names and settings, of which none exists
    "device": ["merge", RECIPE, "--out", "out/merged", "--device", ...],
    "threads": ["merge", RECIPE, "--out", "out/merged", "--threads", ...],
    "tasks": ["evaluate", BASE, "--tasks", ..., "--out", "out/scores", *CPU],
    "tasks_dir": [*EVALUATE[:-4], "--tasks-dir", ..., "--out", "out/scores", *CPU],
    "metric": [*EVALUATE, "--metric", ..., "--out", "out/scores", *CPU],
    "num_fewshot": [*EVALUATE, "--num-fewshot", ..., "--out", "out/scores", *CPU],
    "backend": [*EVALUATE, "--backend", ..., "--out", "out/scores", *CPU],
    "dtype": [*EVALUATE, "--dtype", ..., "--out", "out/scores", *CPU],
    "bases": ["plan", STUDY, "--bases", ...],
    "limit": ["plan", STUDY, "--limit", ...],
    "gpu": ["plan", STUDY, "--gpu", ...],
    "share": ["plan", STUDY, "--share", ...],
    "base": ["inspect-study", STUDY, ...],
    "checkpoint": ["fetch", STUDY, ...],
    "job": ["run", STUDY, "--job", ..., *CPU],
    "study": ["aggregate", "--study", ...],
    "published": ["aggregate", "--study", "mini", "--published", ...],
}
OUTPUTS = {  # likewise for what is written
    "merge": ["merge", RECIPE, "--out", ..., *CPU],
    "evaluate": [*EVALUATE, "--out", ..., *CPU],
    "inspect": ["inspect", BASE, EXPERT, "--out", ...],
    "spectra": ["spectra", BASE, EXPERT, "--out", ..., *CPU],
    "recipes": ["recipes", STUDY, "--results", ...],
    "done": ["fetch", STUDY, "data", "--done", ...],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A locked study, a recipe and hostile files; the working directory of this file's tests."""
    folder = tmp_path_factory.mktemp("hostile")
    make_study(folder, ["llama"], methods=["task_arithmetic"], sizes=[2])
    recipe = {"base": BASE, "experts": [EXPERT], "method": "ties"}
    (folder / RECIPE).write_text(yaml.safe_dump(recipe))
    hostile = folder / "hostile"
    (hostile / "folder.yaml").mkdir(parents=True)
    (hostile / "loop.yaml").symlink_to("loop.yaml")
    (hostile / "dangling.yaml").symlink_to("nowhere")
    for name, content in FILES.items():
        (hostile / f"{name}.yaml").write_bytes(content)
    before = os.getcwd()
    os.chdir(folder)
    lock_study(STUDY)
    yield folder
    os.chdir(before)


def refused(command, value, capsys):
    """Run a command with a value in its place and check how it refuses."""
    try:
        code = main([value if word is ... else word for word in command])
    except SystemExit as wrong_usage:
        code = wrong_usage.code
    lines = capsys.readouterr().err.splitlines()
    assert code in (1, 2), value
    assert len(lines) == 1, (value, lines)
    assert lines[0].startswith("wildmerge") and lines[0].isprintable()
    assert len(lines[0]) < 1000 + 2 * len(value)


@pytest.mark.parametrize("command", READS.values(), ids=READS)
def test_what_cannot_be_read_is_refused_in_one_line(command, folder, capsys):
    files = [f"hostile/{name}.yaml" for name in FILES]
    for value in [*files, *PLACES.values()]:
        refused(command, value, capsys)


@pytest.mark.parametrize("command", NAMES.values(), ids=NAMES)
def test_a_name_or_value_that_does_not_exist_is_refused_in_one_line(command, folder, capsys):
    for value in PLACES.values():
        refused(command, value, capsys)


@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS)
def test_what_cannot_be_written_is_refused_in_one_line(command, folder, capsys):
    for value in ("", "recipe.yaml/x", "/proc/nowhere/x", "x" * 5000):
        refused(command, value, capsys)
