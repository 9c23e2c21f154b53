"""A property of all studies: what can change a number is in a key, and what cannot is in none.

Two studies that differ in one setting share no result that the setting can change, and all others. Every
setting has to be sorted into one of the groups here before this test passes.
"""

import shutil

import pytest
import yaml

from mini_study import make_study
from wildmerge.planning.lock import make_lock
from wildmerge.planning.models import list_evaluations, list_models
from wildmerge.study.file import Benchmark, EvaluationSettings, Study, load_study

SCORES = {  # settings that can change every score, with another value of each
    "evaluation.backend": {"evaluation": {"backend": "prefix", "dtype": "float32"}},
    "evaluation.dtype": {"evaluation": {"backend": "hf", "dtype": "bfloat16"}},
    "evaluation.chat_template": {
        "evaluation": {"backend": "hf", "dtype": "float32", "chat_template": True}
    },
    "benchmarks.task": {"benchmarks": ["mini_two"]},
    "benchmarks.num_fewshot": {"benchmarks": [{"task": "mini_one", "num_fewshot": 1}]},
    "benchmarks.limit": {"benchmarks": [{"task": "mini_one", "limit": 4}]},
    "tasks_dir": {"tasks_dir": "other"},
}
MERGES = {  # settings that can change every merge and no base or expert
    "methods": {"methods": [{"method": "ties", "density": 0.3}]},
    "preset": {"preset": "text"},
    "null_space": {"null_space": "drop"},
    "dtype": {"dtype": "float16"},
    "untie": {"untie": True},
}
CHOICES = {  # settings that choose among models or benchmarks: what both studies have is the same
    "bases": {"bases": {"llama": {"experts": ["expert0", "expert1"]}}},
    "seed": {"seed": 5},
    "sizes": {"sizes": [3]},
    "subsets": {"subsets": 1},
    "on_incompatible": {"on_incompatible": "skip"},
}
NOTHING = {  # settings of how it is run and shown
    "name": {"name": "other"},
    "title": {"title": "Another"},
    "models_per_job": {"models_per_job": 1},
    "store_spectra": {"store_spectra": True},
    "keep_weights": {"keep_weights": True},
    "published": {"published": "published.csv"},
    "benchmarks.label": {"benchmarks": [{"task": "mini_one", "label": "One"}]},
}
ELSEWHERE = {
    "data",  # sets task_data
    "task_data",  # of stock tasks: tests of the lock
    "methods_dir",  # tests of own methods
    "benchmarks.metric",  # read off the same answers: tests of results
    "evaluation",
    "benchmarks",
}


@pytest.fixture
def study_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = make_study(tmp_path, ["llama"], methods=["ties"], sizes=[2], benchmarks=["mini_one"])
    shutil.copytree("tasks", "other")
    for task in ("one", "two", "three"):
        file = tmp_path / f"other/mini_{task}.yaml"
        file.write_text(file.read_text().replace('"{{question}}"', '"Q: {{question}}"'))
    return path


def results(study_file, change):
    """Return the result files of a changed study: of its base and experts, and of its merges."""
    content = yaml.safe_load(study_file.read_text())
    if "bases" in change:
        experts = content["bases"]["llama"]["experts"]
        kept = {name: experts[name] for name in change["bases"]["llama"]["experts"]}
        change = {"bases": {"llama": content["bases"]["llama"] | {"experts": kept}}}
    study_file.write_text(yaml.safe_dump(content | change, sort_keys=False))
    study = load_study(study_file)
    study_file.write_text(yaml.safe_dump(content, sort_keys=False))
    lock = make_lock(study)
    found = {"single": {}, "merge": {}}
    for model in list_models(study, lock):
        kind = "merge" if model.kind == "merge" else "single"
        for evaluation in list_evaluations(study, lock):
            path = evaluation.path(study_file.parent, model.recipe_id)
            found[kind][path] = (model.kind, model.variant, model.experts)
    return found


def test_every_setting_is_sorted():
    inside = {f"evaluation.{key}" for key in EvaluationSettings.model_fields}
    inside |= {f"benchmarks.{key}" for key in Benchmark.model_fields}
    sorted_ = {*SCORES, *MERGES, *CHOICES, *NOTHING, *ELSEWHERE}
    assert {*Study.model_fields, *inside} <= sorted_


@pytest.mark.parametrize("setting", SCORES)
def test_what_can_change_a_score_shares_no_result(study_file, setting):
    before, after = results(study_file, {}), results(study_file, SCORES[setting])
    for kind in ("single", "merge"):
        assert before[kind] and after[kind]
        assert not before[kind].keys() & after[kind].keys()


@pytest.mark.parametrize("setting", MERGES)
def test_what_can_change_a_merge_shares_the_base_and_the_experts_only(study_file, setting):
    before, after = results(study_file, {}), results(study_file, MERGES[setting])
    assert before["single"].keys() == after["single"].keys()
    assert before["merge"] and not before["merge"].keys() & after["merge"].keys()


@pytest.mark.parametrize("setting", CHOICES)
def test_what_chooses_models_changes_none_of_them(study_file, setting):
    before, after = results(study_file, {}), results(study_file, CHOICES[setting])
    for kind in ("single", "merge"):
        paths = {content: path for path, content in before[kind].items()}
        for path, content in after[kind].items():
            assert paths.get(content, path) == path


@pytest.mark.parametrize("setting", NOTHING)
def test_what_changes_no_number_shares_all_results(study_file, setting):
    assert results(study_file, {}) == results(study_file, NOTHING[setting])
