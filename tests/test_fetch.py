"""What a study reads from the network is fetched once, at the locked commits; then no network is needed.

Real commands in processes of their own, which know no hub but tests/hub_server.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save

from hub_server import TOKEN, HubServer
from mini_study import make_study

ROOT = Path(__file__).parent.parent
NOWHERE = {"HF_ENDPOINT": "http://127.0.0.1:9"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A hub with a gated base, two experts and a data set, and a study of them in an empty folder."""
    folder = tmp_path_factory.mktemp("hub")
    file = make_study(folder, ["llama"], methods=["task_arithmetic"], sizes=[2], subsets=1)
    study, task = yaml.safe_load(file.read_text()), folder / "tasks/mini_one.yaml"
    with HubServer() as hub:
        hub.add("org/base", folder / "checkpoints/llama/base", gated=True)
        for expert in ("expert0", "expert1"):
            hub.add(f"org/{expert}", folder / "checkpoints/llama" / expert)
        rows = {"test.jsonl": (folder / "data/mini_one.jsonl").read_bytes()}
        hub.add("org/questions", rows, kind="datasets")
        definition = yaml.safe_load(task.read_text()) | {"dataset_path": "org/questions"}
        del definition["dataset_kwargs"]
        task.write_text(yaml.safe_dump(definition))
        experts = ["org/expert0", "org/expert1"]
        study["bases"] = {"llama": {"checkpoint": "org/base", "experts": experts}}
        file.write_text(yaml.safe_dump(study, sort_keys=False))
        shutil.rmtree(folder / "checkpoints")
        yield hub, folder


def wildmerge(place, *arguments, token=None, **environment):
    """Run a command in the folder; return its exit code and all that it printed."""
    hub, folder = place
    done = subprocess.run(
        [sys.executable, "-m", "wildmerge.cli", *arguments],
        cwd=folder,
        env=os.environ | hub.environment(folder / "home", token) | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = done.stdout + done.stderr
    assert TOKEN not in output
    assert "Traceback" not in output
    return done.returncode, output


def planned(place):
    """Return the jobs that a dry run of the workflow lists."""
    hub, folder = place
    command = [sys.executable, "-m", "snakemake", "tables", "--dry-run", "--cores", "1", "--nolock"]
    command += ["--snakefile", ROOT / "Snakefile", "--config", "study=study.yaml"]
    command += ["--workflow-profile", ROOT / "profiles/default"]
    environment = os.environ | hub.environment(folder / "home") | NOWHERE
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return re.findall(r"^Job \d+: (.*)$", done.stdout.decode() + done.stderr.decode(), re.MULTILINE)


def test_a_study_of_the_hub_is_fetched_through_faults_and_then_needs_no_network(place):
    hub, folder = place
    code, output = wildmerge(place, "fetch", "study.yaml")
    assert code == 1
    assert output.splitlines()[-1] == (
        "wildmerge: org/base: gated; "
        "accept its licence on https://huggingface.co/org/base and set HF_TOKEN"
    )
    hub.fault("/api/models/org/expert0", status=503)
    hub.fault("expert1/model.safetensors", cut_after=3000, times=2)
    hub.fault("base/", status=429, retry_after=0)
    hub.fault("/datasets/org/questions", status=503)
    hub.fault("/test.jsonl", cut_after=30)
    code, output = wildmerge(place, "fetch", "study.yaml", token=TOKEN)
    assert code == 0, output
    assert {"org/base", "org/expert0", "org/expert1", "data"} == set(
        re.findall(r"^(\S+): ", output, re.MULTILINE)
    )
    assert not hub.secrets_at_cdn
    spilled = [
        path
        for path in folder.rglob("*")
        if path.is_file() and TOKEN in path.read_bytes().decode("latin-1")
    ]
    assert not spilled

    moved = hub.add("org/expert0", {"config.json": b"{}"})
    asked = len(hub.requests)
    offline = NOWHERE | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    code, output = wildmerge(place, "fetch", "study.yaml", "--done", "done.json", **offline)
    assert code == 0, output
    assert moved not in output
    assert json.loads((folder / "done.json").read_text())["data"] == "mini_one"
    assert len(hub.requests) == asked
    jobs = planned(place)
    assert "Fetch the benchmarks' data" in jobs
    assert sum(job.startswith("Fetch org/") for job in jobs) == 3


def test_data_that_cannot_be_had_are_one_line(place):
    hub, folder = place
    task = folder / "tasks/mini_two.yaml"
    before = task.read_text()
    definition = yaml.safe_load(before) | {"dataset_path": "org/nowhere"}
    del definition["dataset_kwargs"]
    task.write_text(yaml.safe_dump(definition))
    code, output = wildmerge(place, "fetch", "study.yaml", "data")
    assert code == 1
    assert (
        "mini_two: its definition or the code that it calls changed since it was locked" in output
    )
    code, output = wildmerge(place, "lock", "study.yaml", token=TOKEN)
    task.write_text(before)
    assert code == 1
    last = output.splitlines()[-1]
    assert last.startswith("wildmerge: benchmark mini_two: datasets/org/nowhere: neither a folder")
    assert "`task_data`" in last
    assert "mini_one" not in last


def test_what_would_merge_is_known_before_anything_is_fetched(place):
    hub, folder = place
    wrong = {"w": torch.ones(2)}
    hub.add(
        "org/wrong", {"config.json": b'{"model_type": "llama"}', "model.safetensors": save(wrong)}
    )
    command = ["inspect", "org/base", "org/expert1", "org/wrong"]
    code, output = wildmerge(place, *command, token=TOKEN, HF_HUB_CACHE=str(folder / "other"))
    assert code == 1
    assert re.search(r"^org/expert1 +yes$", output, re.MULTILINE)
    assert re.search(r"^org/wrong +no$", output, re.MULTILINE)
    assert "org/wrong: tensor" in output.splitlines()[-1]
    assert not [path for path in folder.glob("other/*/snapshots/*/model.safetensors")]


def test_a_recipe_of_hub_ids_is_merged_where_they_were_fetched(place):
    hub, folder = place
    recipe = {"base": "org/base", "experts": ["org/expert1@main"], "method": "task_arithmetic"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = ["merge", "recipe.yaml", "--out", "merged", "--device", "cpu"]
    code, output = wildmerge(place, *command)
    assert (code, output.splitlines()[-1]) == (
        1,
        "wildmerge: org/base: not fetched; run `wildmerge fetch org/base` (needs network)",
    )
    code, output = wildmerge(place, "fetch", "org/base", "org/expert1@main", token=TOKEN)
    assert code == 0, output
    code, output = wildmerge(place, *command, **NOWHERE)
    assert code == 0, output
    assert (folder / "merged/model.safetensors").exists()
    assert "- org/expert1\n" in (folder / "merged/README.md").read_text()


def test_names_that_a_study_does_not_hold_are_one_line(place):
    code, output = wildmerge(place, "fetch", "study.yaml", "org/expert7", token=TOKEN)
    assert code == 1
    assert "did you mean 'org/expert" in output.splitlines()[-1]
