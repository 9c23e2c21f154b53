"""Identities follow from bytes, and a checkpoint that changed after locking is noticed."""

import json
import os
import shutil
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from mini_study import make_study
from wildmerge.errors import Refusal
from wildmerge.planning.lock import Lock, check_unchanged, lock_path, make_lock
from wildmerge.planning.models import evaluation_id, list_jobs, list_models
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
    with open(f"{EXPERT}/model.safetensors", "r+b") as stream:  # same size, other bytes
        stream.seek(-1, os.SEEK_END)
        last = stream.read(1)
        stream.seek(-1, os.SEEK_END)
        stream.write(bytes([last[0] ^ 1]))
    with pytest.raises(Refusal, match=f"{EXPERT}: changed since it was locked"):
        check_unchanged(lock, EXPERT)


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
        return [evaluation_id(study, benchmark, lock) for benchmark in study.benchmarks]

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
