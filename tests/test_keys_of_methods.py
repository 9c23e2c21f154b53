"""What decides a merge's id: weights by the expert's name, the code of own methods and their helpers."""

import hashlib

import pytest
import yaml

from mini_study import make_study
from wildmerge.errors import Refusal
from wildmerge.methods.catalogue import discover
from wildmerge.methods.source import code_digest
from wildmerge.planning.lock import make_lock
from wildmerge.planning.models import list_models
from wildmerge.study.file import load_study

SOURCE = '''
from __future__ import annotations
from wildmerge.vectors.task_vectors import Sum, TaskVectors
import helper

def scaled(vectors: TaskVectors, *, lambda_: float = 1.0) -> Sum:
    """The sum, times a number that another file gives."""
    return Sum(lambda_ * helper.FACTOR)
'''


def merges(path):
    study = load_study(path)
    return [m for m in list_models(study, make_lock(study, None)) if m.kind == "merge"]


@pytest.fixture
def weighted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = {"method": "task_arithmetic", "weights": {"expert1": 3, "expert2": 0.5}}
    return make_study(tmp_path, ["llama"], methods=[grid])


def test_a_weight_reaches_the_expert_that_it_names(weighted):
    given = {"expert0": 1.0, "expert1": 3.0, "expert2": 0.5}
    for model in merges(weighted):
        names = [reference.rpartition("/")[2] for reference in model.recipe.experts]
        assert sorted(names) == sorted(model.experts)
        assert model.recipe.parameters["weights"] == [given[name] for name in names]


def test_the_order_in_which_experts_are_named_changes_no_weighted_id(weighted):
    before = {frozenset(m.experts): m.recipe_id for m in merges(weighted) if m.n == 3}
    content = yaml.safe_load(weighted.read_text())
    experts = content["bases"]["llama"]["experts"]
    content["bases"]["llama"]["experts"] = dict(reversed(experts.items()))
    weighted.write_text(yaml.safe_dump(content, sort_keys=False))
    assert {frozenset(m.experts): m.recipe_id for m in merges(weighted) if m.n == 3} == before


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"method": "ties", "weights": [1, 2, 3]}, "by the experts' names"),
        ({"method": "ties", "weights": {"expert7": 2}}, "unknown expert 'expert7'"),
        ({"method": "ties", "weights": {"expert1": -1}}, "greater than 0"),
        ({"method": "iso_c", "weights": {"expert1": 2}}, "weights"),
    ],
)
def test_weights_that_reach_no_expert_are_refused(grid, words, tmp_path):
    path = make_study(tmp_path, ["llama"], methods=[grid])
    with pytest.raises(Refusal, match=words):
        load_study(path)


def test_the_helpers_of_an_own_method_are_part_of_its_code(tmp_path):
    (tmp_path / "scaled.py").write_text(SOURCE)
    (tmp_path / "helper.py").write_text("import parts\nFACTOR = parts.ONE\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/__init__.py").write_text("ONE = 1.0\n")
    (tmp_path / "unrelated.py").write_text("X = 1\n")
    seen = {discover([tmp_path])["scaled"].digest}
    assert discover([tmp_path])["scaled"].load()(range(2)).factor == 1.0
    (tmp_path / "helper.py").write_text('"""Said."""\nimport parts  # read\nFACTOR = parts.ONE\n')
    (tmp_path / "unrelated.py").write_text("X = 2\n")
    assert {code_digest(tmp_path / "scaled.py")} == seen
    for file, text in (
        ("helper.py", "FACTOR = 2.0\nimport parts\n"),
        ("parts/__init__.py", "ONE=2"),
    ):
        (tmp_path / file).write_text(text)
        seen.add(code_digest(tmp_path / "scaled.py"))
    assert len(seen) == 3


def test_a_digest_is_the_same_in_every_version_of_python(tmp_path):
    """Python 3.12 has fields that 3.11 lacks, and 3.13 leaves out empty ones."""
    file = tmp_path / "a.py"
    file.write_text("def f(x):\n    return f'{x!r}'\n")
    text = (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x')]),body=[Return(value="
        "JoinedStr(values=[FormattedValue(value=Name(id='x',ctx=Load()),conversion=114)]))])])"
    )
    assert code_digest(file) == hashlib.sha256(text.encode()).hexdigest()
