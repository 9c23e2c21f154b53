"""The workflow on a small study: nothing is computed twice, and a kill loses no finished work.

Real snakemake, real merges, real lm-eval; only the models are tiny and random.
"""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from mini_study import make_study
from wildmerge.planning.lock import Lock, lock_path
from wildmerge.planning.models import list_models
from wildmerge.storage.files import sha256_of
from wildmerge.study.file import load_study

ROOT = Path(__file__).parent.parent
TARGETS = ["tables"]
CORES = 2


def snakemake(folder, *options, targets=TARGETS, check=True):
    """Run the real workflow in `folder` and return what it printed."""
    done = subprocess.run(
        command(*options, targets=targets), cwd=folder, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0 or not check, output
    return output


def command(*options, targets=TARGETS):
    return [
        *(sys.executable, "-m", "snakemake", *targets, "--snakefile", str(ROOT / "Snakefile")),
        *("--workflow-profile", str(ROOT / "profiles/default"), "--cores", str(CORES)),
        *("--config", "study=study.yaml", *options),
    ]


def edit(folder, change):
    content = yaml.safe_load((folder / "study.yaml").read_text())
    change(content)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


def digests(folder, pattern):
    """Return the digest of each file; hidden ones are what a killed process left of a write."""
    files = [p for p in sorted(folder.glob(pattern)) if not p.name.startswith(".")]
    return {str(p.relative_to(folder)): sha256_of(p) for p in files}


def states(folder, pattern):
    return {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.glob(pattern)}


def planned(output):
    """Return the messages of the jobs of a dry run."""
    return sorted(re.findall(r"^Job \d+: (.*)$", output, re.MULTILINE))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished run of the small study."""
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, ["llama"], methods=["task_arithmetic", "ties"])
    snakemake(folder)
    return folder


def test_a_finished_study_has_all_results_and_no_weights(finished, monkeypatch):
    monkeypatch.chdir(finished)
    study = load_study(finished / "study.yaml")
    lock = Lock.read(lock_path(finished / "study.yaml"))
    models = list_models(study, lock)
    assert len(models) == 1 + 3 + 2 * (2 + 1)
    assert len(list(finished.glob("results/evals/*/*.json"))) == 2 * len(models)
    merges = [model for model in models if model.kind == "merge"]
    assert len(list(finished.glob("results/merges/*.json"))) == len(merges)
    assert not list(finished.glob("results/**/*.safetensors"))
    assert not list(finished.glob("results/scratch/*"))


def test_the_same_subsets_serve_every_method(finished, monkeypatch):
    monkeypatch.chdir(finished)
    study = load_study(finished / "study.yaml")
    models = list_models(study, Lock.read(lock_path(finished / "study.yaml")))
    merges = [model for model in models if model.kind == "merge"]
    by_variant = {}
    for model in merges:
        by_variant.setdefault(model.variant, []).append((model.base, model.n, model.experts))
    assert len(by_variant) == 2
    assert len({tuple(subsets) for subsets in by_variant.values()}) == 1


def test_a_second_run_finds_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished)


def test_a_changed_hyperparameter_reruns_its_method_and_nothing_else(finished):
    before = (finished / "study.yaml").read_text()
    try:
        edit(
            finished,
            lambda s: s.update(methods=["task_arithmetic", {"method": "ties", "density": 0.3}]),
        )
        jobs = planned(snakemake(finished, "--dry-run"))
        assert jobs == [
            "List the recipes and benchmarks of study.yaml",
            "Make the tables of mini",
            "Merge and evaluate llama, ties density=0.3 (3 models)",
        ]
    finally:
        (finished / "study.yaml").write_text(before)


def test_another_benchmark_recomputes_no_result(finished):
    """Also when the lock is younger than the edit, as one that was made by hand can be."""
    before = states(finished, "results/evals/*/*.json")
    edit(finished, lambda s: s["benchmarks"].append("mini_three"))
    os.utime(finished / "study.lock.json")
    output = snakemake(finished)
    assert "mini: benchmark mini_three is new: the lock is renewed" in output
    after = states(finished, "results/evals/*/*.json")
    assert len(after) == len(before) * 3 // 2
    assert all(after[path] == state for path, state in before.items())
    assert not list(finished.glob("results/**/*.safetensors"))


def test_an_expert_overwritten_in_place_is_made_anew(finished, monkeypatch):
    """No time of a folder shows it, nor the size of the file or its time."""
    monkeypatch.chdir(finished)
    lock = Lock.read(lock_path("study.yaml"))
    weights = finished / "checkpoints/llama/expert2/model.safetensors"
    flip_last_byte(weights)
    status = subprocess.run(
        [sys.executable, "-m", "wildmerge.cli", "status", "study.yaml"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "checkpoint checkpoints/llama/expert2 has changed since it was locked" in status
    snakemake(finished)
    renewed = Lock.read(lock_path("study.yaml"))
    changed = {n for n, identity in renewed.identities.items() if identity != lock.identities[n]}
    assert changed == {"checkpoints/llama/expert2"}
    ids = {m.recipe_id for m in list_models(load_study("study.yaml"), renewed)}
    assert {row["recipe_id"] for row in read_csv(finished / "results/mini/recipes.csv")} == ids
    assert all(list(finished.glob(f"results/evals/{id_}/*.json")) for id_ in ids)


def flip_last_byte(path):
    """Change one byte of a file and nothing that a listing shows."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    os.utime(path, ns=times)


def test_a_run_keeps_others_of_its_study_out_and_a_killed_one_does_not(tmp_path):
    make_study(tmp_path, ["llama"], methods=["task_arithmetic"], sizes=[2])
    first = subprocess.Popen(
        command(),
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running = tmp_path / "results/mini/running"
    while not (running.exists() and running.read_text()):
        assert first.poll() is None
        time.sleep(0.01)
    output = snakemake(tmp_path, check=False)
    assert f"mini is being run already ({running.read_text()}); wait until it ends" in output
    assert "Traceback" not in output
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    snakemake(tmp_path)
    assert running.read_text() == ""


@pytest.mark.slow
def test_a_part_of_a_study_stands_beside_the_whole(tmp_path):
    make_study(tmp_path, methods=["task_arithmetic"])
    snakemake(tmp_path, "bases=[llama]", "limit=4")
    part = tmp_path / "results/mini-llama-limit4/tables"
    assert {row["base"] for row in read_csv(part / "models.csv")} == {"llama"}
    assert {row["items"] for row in read_csv(part / "benchmarks.csv")} == {"4"}
    before = digests(tmp_path, "results/mini-llama-limit4/tables/*")
    snakemake(tmp_path)
    whole = read_csv(tmp_path / "results/mini/tables/models.csv")
    assert {row["base"] for row in whole} == {"llama", "qwen3"}
    assert {row["items"] for row in read_csv(tmp_path / "results/mini/tables/benchmarks.csv")} == {
        "16"
    }
    assert digests(tmp_path, "results/mini-llama-limit4/tables/*") == before


def read_csv(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_kills_at_ten_moments_end_in_the_same_tables(tmp_path):
    calm, shaken = tmp_path / "calm", tmp_path / "shaken"
    for folder in (calm, shaken):  # stored spectra change no byte either
        folder.mkdir()
        make_study(folder, methods=["task_arithmetic", "tsv_m"], store_spectra=folder == shaken)
    snakemake(calm)
    finished = {}
    for pattern, count in MOMENTS:
        live = kill_at(pattern, count, shaken, finished)
        assert live <= CORES  # merged checkpoints at a time
        assert not broken_files(shaken)
    snakemake(shaken)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # none computed twice
    assert digests(calm, "results/*/tables/*") == digests(shaken, "results/*/tables/*")
    assert not list(shaken.glob("results/**/*.safetensors"))


@pytest.mark.slow
def test_a_model_that_failed_is_made_by_the_next_run_and_shown_as_a_gap_until_then(tmp_path):
    calm, shaken = tmp_path / "calm", tmp_path / "shaken"
    for folder in (calm, shaken):
        folder.mkdir()
        make_study(folder, ["llama"], methods=["task_arithmetic"], sizes=[2])
    snakemake(calm)
    (merge,) = list(calm.glob("results/merges/*.json"))[:1]
    obstacle = shaken / "results/evals" / merge.stem
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file where the folder of one model's results would be")
    run = subprocess.run(command(), cwd=shaken, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    shown = shaken / "results/mini/incomplete"
    with (shown / "tables/missing.csv").open(newline="") as stream:
        assert {row["recipe_id"] for row in csv.DictReader(stream)} >= {merge.stem}
    assert (shown / "report.html").exists()
    obstacle.unlink()
    snakemake(shaken)
    assert digests(calm, "results/*/tables/*") == digests(shaken, "results/*/tables/*")
    assert not shown.exists()


@pytest.mark.slow
def test_two_studies_at_once_share_their_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_study(tmp_path, ["llama"], methods=["task_arithmetic", "tsv_m"], store_spectra=True)
    study = yaml.safe_load((tmp_path / "study.yaml").read_text())
    other = study | {"name": "other", "models_per_job": 2}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    runs = [
        subprocess.Popen(
            [*command()[:-1], f"study={file}"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for file in ("study.yaml", "other.yaml")
    ]
    outputs = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], outputs
    logs = "".join(path.read_text() for path in tmp_path.glob("results/*/logs/models-*.log"))
    models = list_models(
        load_study(tmp_path / "study.yaml"), Lock.read(tmp_path / "study.lock.json")
    )
    assert sorted(re.findall("^done: (.*)$", logs, re.MULTILINE)) == sorted(m.label for m in models)
    assert not broken_files(tmp_path)
    tables = [digests(tmp_path / "results" / name, "tables/*.md") for name in ("mini", "other")]
    assert tables[0] == tables[1]


MOMENTS = [
    (".snakemake/metadata/*", 0),  # as soon as it runs
    ("study.lock.json", 1),
    ("results/mini/inspect/*.csv", 1),
    ("results/mini/spectra/*.safetensors", 2),
    ("results/scratch/wildmerge-*/*/*.safetensors", 1),  # during a merge
    ("results/evals/*/*.json", 1),
    ("results/evals/*/*.json", 12),
    ("results/merges/*.json", 6),
    ("results/mini/jobs/*.json", 3),
    ("results/mini/tables/*.csv", 1),
]
"""When to kill a run: as soon as so many files are there."""


def kill_at(pattern, count, folder, finished):
    """Start the workflow and kill its whole process tree once so many files of a pattern are there.

    Keeps in `finished` when each result was written; returns how many merged checkpoints there were
    at most.
    """
    process = subprocess.Popen(
        command(),
        cwd=folder,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    live = 0
    while process.poll() is None and len(list(folder.glob(pattern))) < count:
        live = max(live, len(list(folder.glob("results/scratch/wildmerge-*"))))
        time.sleep(0.01)
    assert process.poll() is None, f"{pattern}: the run ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for path in folder.glob("results/evals/*/*.json"):
        finished.setdefault(path, path.stat().st_mtime_ns)
    return live


def broken_files(folder):
    """Return result files and merge reports under final names that do not parse."""
    schemas = {path: 3 for path in folder.glob("results/evals/*/*.json")}
    schemas |= {path: 1 for path in folder.glob("results/merges/*.json")}
    found = []
    for path, schema in schemas.items():
        try:
            assert json.loads(path.read_text())["schema"] == schema
        except Exception:  # noqa: BLE001 - any failure to read is what is looked for
            found.append(path)
    return found


# --- refusals before any job starts ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: s.update(methods=["tie"]), "did you mean 'ties'"),
        (lambda s: s.update(benchmarks=["mini_ones"]), "did you mean 'mini_one'"),
        (lambda s: s.update(sizes=[4]), "larger than the number of experts"),
        (
            lambda s: s["bases"]["llama"].update(checkpoint="nowhere"),
            "study.yaml: bases.llama.checkpoint: nowhere: no such folder in",
        ),
    ],
)
def test_the_workflow_refuses_a_bad_study(tmp_path, change, words):
    make_study(tmp_path)
    edit(tmp_path, change)
    output = snakemake(tmp_path, check=False)
    assert words in output
    assert "Traceback" not in output
    assert not list(tmp_path.glob("results/evals"))


def test_a_second_study_of_the_same_name_is_refused(finished):
    other = finished / "other.yaml"
    other.write_text((finished / "study.yaml").read_text())
    options = [*command()[:-1], "study=other.yaml"]
    done = subprocess.run(options, cwd=finished, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "other.yaml: name: results/mini exists and is of another study" in done.stderr
    other.unlink()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no study given; run `snakemake --config study=FILE`"),
        (["--config", "sudy=study.yaml"], "--config: unknown key 'sudy'; did you mean 'study'?"),
        (["--configfile", "study.yaml", "--config", "seed=1"], "--config seed=...: does nothing"),
        (["--configfile", "study.yaml", "other.yaml"], "are 2 studies; give one"),
    ],
)
def test_the_workflow_refuses_options_that_would_do_nothing(tmp_path, options, words):
    for name in ("study.yaml", "other.yaml"):
        (tmp_path / name).write_text("name: mini\nseed: 0\n")
    call = [*command()[: command().index("--config")], *options]
    done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_expert_with_nan_stops_the_study_before_any_merge(tmp_path):
    from safetensors.torch import load_file, save_file

    make_study(tmp_path)
    path = tmp_path / "checkpoints/llama/expert1/model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})
    output = snakemake(tmp_path, check=False)
    assert "expert1: tensor model.norm.weight holds NaN" in output
    assert not list(tmp_path.glob("results/merges/*"))
