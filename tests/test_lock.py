"""Identities follow from bytes, and a checkpoint that changed after locking is noticed."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from mini_study import make_study
from paper_lock import SHAPES, entry
from wildmerge.errors import Refusal
from wildmerge.planning.lock import Lock, check_unchanged, lock_path, make_lock
from wildmerge.planning.models import evaluation_id, list_jobs, list_models
from wildmerge.planning.opening import changes_of, lock_study, open_study
from wildmerge.study.file import load_study


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_study(tmp_path, ["llama"])


BASE = "checkpoints/llama/base"
EXPERT = "checkpoints/llama/expert0"


def test_a_lock_survives_writing_and_reading(study_file):
    lock = make_lock(load_study(study_file))
    lock.write(lock_path(study_file))
    again = Lock.read(lock_path(study_file))
    assert (again.checkpoints, again.tasks) == (lock.checkpoints, lock.tasks)


def test_identity_is_of_bytes_not_of_place_or_time(study_file, tmp_path):
    study = load_study(study_file)
    before = make_lock(study).identities[EXPERT]
    shutil.copytree(EXPERT, "elsewhere")
    os.utime(f"{EXPERT}/model.safetensors", (1, 1))
    content = yaml.safe_load(study_file.read_text())
    content["bases"]["llama"]["experts"]["expert0"] = "elsewhere"
    study_file.write_text(yaml.safe_dump(content))
    assert make_lock(load_study(study_file)).identities["elsewhere"] == before
    assert make_lock(study).identities[EXPERT] == before


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_file_that_matters_counts(study_file, file):
    study = load_study(study_file)
    before = make_lock(study).identities
    data = Path(EXPERT, file).read_bytes()
    changed = data[:-1] + bytes([data[-1] ^ 1]) if file == "model.safetensors" else data + b" "
    Path(EXPERT, file).write_bytes(changed)
    after = make_lock(study).identities
    assert {name for name in before if before[name] != after[name]} == {EXPERT}


def test_a_file_that_an_index_names_counts_wherever_it_lies(study_file):
    Path(EXPERT, "parts").mkdir()
    whole, part = Path(EXPERT, "model.safetensors"), Path(EXPERT, "parts/all.safetensors")
    whole.rename(part)
    tensors = load_file(part)
    index = {"weight_map": dict.fromkeys(tensors, "parts/all.safetensors")}
    Path(EXPERT, "model.safetensors.index.json").write_text(json.dumps(index))
    study = load_study(study_file)
    lock = make_lock(study)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, part)
    assert make_lock(study).identities[EXPERT] != lock.identities[EXPERT]
    with pytest.raises(Refusal, match="changed since it was locked"):
        check_unchanged(lock, EXPERT)


@pytest.mark.parametrize("file", ["README.md", ".snakemake_timestamp", "optimizer.pt"])
def test_files_that_do_not_matter_do_not_count(study_file, file):
    study = load_study(study_file)
    before = make_lock(study).identities
    with open(f"{EXPERT}/{file}", "w") as stream:
        stream.write("new")
    assert make_lock(study).identities == before


def test_a_change_after_locking_is_refused(study_file):
    lock = make_lock(load_study(study_file))
    check_unchanged(lock, EXPERT)
    path = Path(EXPERT, "model.safetensors")
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    data = path.read_bytes()
    with path.open("r+b") as stream:  # same size and times, other bytes
        stream.write(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=times)
    with pytest.raises(Refusal, match=f"{EXPERT}: changed since it was locked"):
        check_unchanged(lock, EXPERT)


def test_a_lock_of_another_version_is_refused_and_renewed_with_its_commits(study_file):
    study = load_study(study_file)
    lock, path = make_lock(study), lock_path(study_file)
    hub = entry("org/name", SHAPES["Qwen/Qwen3-4B"])
    content = {"schema": 1, "checkpoints": lock.checkpoints | {"org/name": hub}, "tasks": {}}
    path.write_text(json.dumps(content))
    with pytest.raises(Refusal, match="of another version of wildmerge; run `wildmerge lock`"):
        Lock.read(path)
    assert changes_of(study_file) == ["the lock is of an earlier version"]
    assert Lock.read_old(path).identities == {"org/name": hub["identity"]}
    opened = lock_study(study_file)
    assert Lock.read(path).identities == opened.lock.identities == lock.identities


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"files": {"../x": {"size": 1, "sha256": "0" * 64}}}, "leads out of the checkpoint"),
        ({"files": {"/etc/x": {"size": 1, "sha256": "0" * 64}}}, "leads out of the checkpoint"),
        ({"files": {"x": {"size": 1, "sha256": "0"}}}, "no digest of x"),
        ({"files": {"x": {"size": -1, "sha256": "0" * 64}}}, "no size of x"),
        ({"identity": "sha256:../../x"}, "its identity is no digest"),
        ({"repo": "../x", "commit": "0" * 40}, "no repository and commit"),
        ({"repo": "a/b", "commit": "0" * 39}, "no repository and commit"),
        ({"repo": "a/b", "commit": "0" * 40, "identity": "a/c@1"}, "not that of its commit"),
        ({"tensors": {"w": ["F32", [-1]]}}, "no dtype and shape of w"),
        ({"config": None}, "no entry of a checkpoint"),
    ],
)
def test_a_lock_cannot_lead_elsewhere(study_file, change, words):
    path = lock_path(study_file)
    make_lock(load_study(study_file)).write(path)
    content = json.loads(path.read_text())
    content["checkpoints"][EXPERT] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(Refusal, match=f"{path.name}: {EXPERT}: .*{words}"):
        Lock.read(path)


def test_studies_beside_each_other_have_locks_of_their_own(tmp_path):
    names = ("study.yaml", "study.yml")
    assert len({lock_path(tmp_path / name) for name in names}) == len(names)


def test_what_an_edit_adds_is_named_before_and_after_the_lock_is_renewed(study_file):
    lock_study(study_file)
    assert changes_of(study_file) == []
    content = yaml.safe_load(study_file.read_text())
    shutil.copytree("checkpoints/llama/expert0", "mine")
    with open("mine/config.json", "a") as stream:
        stream.write(" ")
    content["bases"]["llama"]["experts"]["mine"] = "mine"
    content["benchmarks"].append("mini_three")
    study_file.write_text(yaml.safe_dump(content))
    news = ["checkpoint mine is new", "benchmark mini_three is new"]
    assert changes_of(study_file) == news
    with pytest.raises(Refusal, match="does not know checkpoint mine; run `wildmerge lock"):
        open_study(study_file)
    assert lock_study(study_file).renewed == news
    assert changes_of(study_file) == []
    assert lock_study(study_file).renewed == []


def test_the_same_bytes_under_two_names_are_refused(study_file):
    shutil.rmtree(EXPERT)
    shutil.copytree("checkpoints/llama/expert1", EXPERT)
    with pytest.raises(Refusal, match="'expert1' .* same bytes as 'expert0'"):
        make_lock(load_study(study_file))


def test_missing_data_and_missing_lock_are_refused(study_file):
    with pytest.raises(Refusal, match="run `wildmerge lock`"):
        Lock.read(lock_path(study_file))
    os.remove("data/mini_one.jsonl")
    with pytest.raises(Refusal, match=r"data/mini_one\.jsonl is missing"):
        make_lock(load_study(study_file))


def test_data_and_settings_are_part_of_a_score_and_nothing_else_is(study_file):
    def ids():
        study = load_study(study_file)
        lock = make_lock(study)
        return [evaluation_id(b, lock.tasks[b.task], study.evaluation) for b in study.benchmarks]

    first, second = ids()
    content = yaml.safe_load(study_file.read_text())
    content["sizes"], content["seed"] = [3], 5
    study_file.write_text(yaml.safe_dump(content))
    assert ids() == [first, second]
    with open("data/mini_two.jsonl", "a") as stream:
        stream.write('{"question": "x?", "choices": ["a", "b"], "answer": 0}\n')
    assert ids()[0] == first
    assert ids()[1] != second
    content["benchmarks"][0] = {"task": "mini_one", "limit": 3}
    study_file.write_text(yaml.safe_dump(content))
    assert ids()[0] != first


def test_jobs_cover_every_model_once_and_stay_small(study_file):
    study = load_study(study_file).model_copy(update={"models_per_job": 2})
    lock = make_lock(study)
    jobs = list_jobs(study, lock)
    covered = [model.recipe_id for job in jobs for model in job.models]
    assert covered == [model.recipe_id for model in list_models(study, lock)]
    assert max(len(job.models) for job in jobs) == 2
    assert all(len({(m.base, m.variant) for m in job.models}) == 1 for job in jobs)
