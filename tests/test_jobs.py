"""Jobs of a study that fail, are stopped, are killed or meet each other, and what `status` says."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mini_study import make_study
from wildmerge.errors import Refusal
from wildmerge.jobs import status
from wildmerge.jobs.run import run_job
from wildmerge.planning.lock import lock_path, make_lock
from wildmerge.planning.models import list_jobs
from wildmerge.scoring.session import Session
from wildmerge.study.file import load_study

CLI = [sys.executable, "-m", "wildmerge.cli"]


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A locked study of two jobs: base and experts, and two merges of them."""
    monkeypatch.chdir(tmp_path)
    make_study(tmp_path, ["llama"], methods=["task_arithmetic"], sizes=[2])
    return tmp_path / "study.yaml"


def locked(study_file):
    study = load_study(study_file)
    lock = make_lock(study)
    lock.write(lock_path(study_file))
    return study, lock


def start(study_file, job):
    command = [*CLI, "run", study_file.name, "--job", job.id, "--device", "cpu"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(study_file, job):
    process = start(study_file, job)
    return process.communicate()[0], process.returncode


def status_of(study_file):
    command = [*CLI, "status", study_file.name]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def until(condition, process, seconds=1200):
    ends = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_model_that_fails_does_not_stop_the_others(study):
    # no refusal: the tokenizers library fails on this file in its own words
    shutil.copy("checkpoints/llama/base/config.json", "checkpoints/llama/expert1/tokenizer.json")
    known, lock = locked(study)
    experts, merges = list_jobs(known, lock)
    output, code = finish(study, experts)
    assert code == 1
    assert "Traceback" in output
    assert "wildmerge: llama expert1: " in output.splitlines()[-1]
    lines = status_of(study).splitlines()
    assert lines[0] == "mini: 3 of 6 models done; jobs: 0 running, 1 failed, 1 waiting"
    assert lines[2].startswith("failed   llama expert1: ")
    assert lines[2].removeprefix("failed   ") == output.splitlines()[-1].removeprefix("wildmerge: ")
    assert lines[3].endswith(f"results/mini/logs/models-{experts.id}.log")


def test_a_stopped_and_a_killed_job_leave_nothing_and_go_on_where_they_were(study, tmp_path):
    known, lock = locked(study)
    merges = list_jobs(known, lock)[1]
    scratch = tmp_path / "results/scratch"
    weights = lambda: list(scratch.glob("wildmerge-*/*/*.safetensors"))  # noqa: E731

    process = start(study, merges)
    until(lambda: "jobs: 1 running" in status.describe(known, lock, tmp_path / "results"), process)
    until(weights, process)
    process.send_signal(signal.SIGTERM)
    assert "interrupted" in process.communicate()[0]
    assert process.returncode == 130
    assert not list(scratch.iterdir())
    assert "failed   llama, task_arithmetic (2 models)" in status_of(study)
    assert "stopped by a signal" in status_of(study)

    process = start(study, merges)
    results = lambda: list(tmp_path.glob("results/evals/*/*.json"))  # noqa: E731
    until(lambda: weights() and results(), process)
    process.kill()
    process.communicate()
    kept = {path: path.stat().st_mtime_ns for path in results()}
    assert "killed, or its machine is down" in status_of(study)

    output, code = finish(study, merges)
    assert code == 0, output
    assert not list(scratch.iterdir())
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert "2 of 6 models done; jobs: 0 running, 0 failed, 1 waiting" in status_of(study)


def test_two_studies_at_once_make_a_shared_model_once(study):
    other = study.with_name("other.yaml")
    content = yaml.safe_load(study.read_text()) | {"name": "other", "models_per_job": 1}
    other.write_text(yaml.safe_dump(content))
    job = list_jobs(*locked(study))[0]
    rivals = list_jobs(*locked(other))[: len(job.models)]
    processes = [start(study, job), start(other, rivals[-1])]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    lines = [line for output in outputs for line in output.splitlines() if "done: " in line]
    assert sorted(lines) == sorted(f"done: {model.label}" for model in job.models)


def test_a_checkpoint_that_changes_while_it_is_scored_leaves_no_result(study, monkeypatch):
    known, lock = locked(study)
    job = list_jobs(known, lock)[0]
    score = Session.score

    def change_meanwhile(session, model, *arguments, **options):
        score(session, model, *arguments, **options)
        if model.name == "expert1":
            with open(model / "tokenizer_config.json", "a") as stream:
                stream.write(" ")

    monkeypatch.setattr(Session, "score", change_meanwhile)
    with pytest.raises(Refusal, match="expert1: changed since it was locked"):
        run_job(known, lock, job, Path("results"))
    scored = {path.parent.name for path in Path("results/evals").glob("*/*.json")}
    assert scored == {m.recipe_id for m in job.models if m.experts != ("expert1",)}


OPENED = """
import sys
from pathlib import Path

def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], str):
        path = Path(arguments[0]).resolve()
        if path.is_relative_to(Path.cwd()):
            opened.add(str(path.relative_to(Path.cwd())))

opened = set()
from wildmerge.cli.main import main
sys.addaudithook(watch)
assert main(["status", "study.yaml"]) == 0
print(*sorted(opened), "torch" in sys.modules)
"""
"""Prints the state of a study, and which of its files were opened for that."""


def test_status_opens_no_results_and_imports_no_torch(study):
    known, lock = locked(study)
    finish(study, list_jobs(known, lock)[0])
    command = [sys.executable, "-c", OPENED]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *opened, torch = done.stdout.splitlines()[-1].split()
    assert torch == "False"
    assert {"study.yaml", "study.lock.json"} < set(opened)
    assert not [file for file in opened if file.startswith(("results/evals/", "results/merges/"))]


def test_status_of_a_study_that_is_not_locked_says_what_to_do(study):
    done = subprocess.run([*CLI, "status", study.name], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "study.lock.json: missing; run `wildmerge lock`" in done.stderr
