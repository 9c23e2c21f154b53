"""Which experts take part: decided from the lock alone, the same for plans, jobs, tables and report."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from mini_study import make_study
from test_adapters import PLAIN, make_adapter
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.jobs.run import run_job
from wildmerge.planning.admission import admit
from wildmerge.planning.lock import Lock, lock_path, make_lock
from wildmerge.planning.models import list_evaluations, list_jobs, list_models
from wildmerge.study.file import load_study

EXPERT = "checkpoints/llama/expert1"
MISSING = "tensor model.norm.weight of the base is missing"


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    """A study whose second of three experts lacks a tensor."""
    monkeypatch.chdir(tmp_path)
    path = make_study(tmp_path, ["llama"], methods=["task_arithmetic"])
    weights = tmp_path / EXPERT / "model.safetensors"
    tensors = load_file(weights)
    tensors.pop("model.norm.weight")
    save_file(tensors, weights)
    return path


def change(study_file, **changes):
    content = yaml.safe_load(study_file.read_text())
    study_file.write_text(yaml.safe_dump(content | changes, sort_keys=False))


def test_an_expert_that_does_not_merge_stops_the_study_by_default(study_file, capsys):
    assert main(["lock", str(study_file)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("wildmerge: bases.llama.experts.expert1: ")
    assert MISSING in error and "on_incompatible: skip" in error
    assert not lock_path(study_file).exists()


def test_a_skipped_expert_is_in_no_model(study_file, capsys):
    change(study_file, on_incompatible="skip")
    assert main(["lock", str(study_file)]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert any(line.startswith("llama: expert 'expert1' skipped: ") for line in lines)
    assert "llama: no merges of 3 experts, 2 are left" in lines
    shutil.rmtree("checkpoints")  # nothing but the lock is needed to know the models
    lock = Lock.read(lock_path(study_file))
    models = list_models(admit(load_study(study_file), lock).study, lock)
    assert [model.experts for model in models] == [
        (),
        ("expert0",),
        ("expert2",),
        ("expert0", "expert2"),
    ]


def test_a_missing_tokenizer_is_named_before_anything_is_merged(study_file):
    """An expert is scored by itself, with its own tokenizer; a merge has the base's."""
    shutil.rmtree(EXPERT)
    shutil.copytree("checkpoints/llama/expert2", EXPERT)
    for file in Path(EXPERT).glob("tokenizer*"):
        file.unlink()
    study = load_study(study_file)
    with pytest.raises(Refusal, match="experts.expert1: no tokenizer files; copy those of"):
        admit(study, make_lock(study))
    for file in Path("checkpoints/llama/base").glob("tokenizer*"):
        file.unlink()
    with pytest.raises(Refusal, match="bases.llama.checkpoint: .* no tokenizer files"):
        admit(study, make_lock(study))


def test_a_missing_chat_template_is_named_before_anything_is_merged(study_file, capsys):
    change(study_file, evaluation={"chat_template": True}, on_incompatible="skip")
    main(["lock", str(study_file)])
    template = '{"chat_template": "{{ messages }}"}'
    for folder in Path("checkpoints/llama").iterdir():
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config["chat_template"] = [{"name": "default", "template": template}]
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    Path("checkpoints/llama/expert2/chat_template.jinja").write_text(template)
    assert main(["inspect-study", str(study_file), "llama"]) == 0
    config["chat_template"] = [{"name": "tool_use", "template": template}]
    Path("checkpoints/llama/expert0/tokenizer_config.json").write_text(json.dumps(config))
    assert main(["inspect-study", str(study_file), "llama"]) == 1
    assert "expert0: its tokenizer has no chat template" in capsys.readouterr().err


def test_skipping_an_expert_is_as_if_it_had_not_been_named(study_file):
    change(study_file, on_incompatible="skip")
    skipping = load_study(study_file)
    content = yaml.safe_load(study_file.read_text())
    del content["bases"]["llama"]["experts"]["expert1"]
    change(study_file, bases=content["bases"], sizes=[2])
    without = load_study(study_file)

    def ids(study):
        opened = admit(study, make_lock(study))
        return [model.recipe_id for model in list_models(opened.study, opened.lock)]

    assert ids(skipping) == ids(without)


def test_a_base_without_experts_and_a_quantised_base_are_refused(study_file):
    change(study_file, on_incompatible="skip")
    study = load_study(study_file)
    lock = make_lock(study)
    base = lock.checkpoints["checkpoints/llama/base"]
    base["config"]["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    with pytest.raises(Refusal, match=r"base: quantised weights \(gptq, 4 bit\)"):
        admit(study, lock)
    del base["config"]["quantization_config"]
    base["tensors"]["model.layers.2.mlp.up_proj.weight"] = ["BF16", [48, 32]]
    with pytest.raises(Refusal, match="none of its experts merges"):
        admit(study, lock)


def test_the_inspection_lists_who_was_skipped(study_file, capsys):
    change(study_file, on_incompatible="skip")
    main(["lock", str(study_file)])
    assert main(["inspect-study", str(study_file), "llama", "--out", "inspect/llama.csv"]) == 0
    with open("inspect/llama.csv") as stream:
        rows = {row["expert"]: row for row in csv.DictReader(stream)}
    assert [row["merges"] for row in rows.values()] == ["yes", "yes", "skipped"]
    assert MISSING in rows["expert1"]["refusal"]
    with open("inspect/llama+cosines.csv") as stream:
        (pair,) = csv.DictReader(stream)
    assert (pair["expert"], pair["other"]) == ("expert2", "expert0")


def test_what_only_weights_tell_stops_a_study_that_skips(study_file, capsys):
    change(study_file, on_incompatible="skip")
    weights = "checkpoints/llama/expert2/model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, weights)
    main(["lock", str(study_file)])
    assert main(["inspect-study", str(study_file), "llama"]) == 1
    assert "expert2: tensor model.norm.weight holds NaN" in capsys.readouterr().err


def test_adapters_are_admitted_by_their_headers_and_scored_as_models(study_file, tmp_path):
    """The lock describes an adapter by its factors; its job merges it before it is scored."""
    shutil.rmtree(EXPERT)
    expected = make_adapter("checkpoints/llama/base", tmp_path / EXPERT, **PLAIN)
    study = load_study(study_file)
    lock = make_lock(study)
    assert not admit(study, lock).skipped["llama"]
    whole = tmp_path / "whole"
    shutil.copytree("checkpoints/llama/base", whole)
    bases = study.model_dump()["bases"]
    bases["llama"]["experts"]["expert1"] = str(whole)
    shape = load_file(whole / "model.safetensors")
    save_file(
        {name: expected[name].to(torch.bfloat16) for name in shape},
        whole / "model.safetensors",
        metadata={"format": "pt"},
    )
    scores = []
    for bases_given in (study.model_dump()["bases"], bases):
        change(study_file, bases=bases_given)
        scores.append(score_of("expert1", study_file))
    assert scores[0] == scores[1]
    lock.checkpoints[EXPERT]["config"]["use_dora"] = True
    with pytest.raises(Refusal, match="experts.expert1: .* DoRA"):
        admit(study, lock)


def score_of(expert, study_file):
    """Run the job of the base and experts; return an expert's results without names and ids."""
    study = load_study(study_file)
    lock = make_lock(study)
    results = study_file.parent / "results"
    (job, *_) = list_jobs(study, lock)
    run_job(study, lock, job, results)
    (model,) = [model for model in job.models if model.experts == (expert,)]
    return [
        (
            json.loads(each.path(results, model.recipe_id).read_text())["metrics"],
            each.answers(results, model.recipe_id).read_bytes(),
        )
        for each in list_evaluations(study, lock)
    ]
