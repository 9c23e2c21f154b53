"""What would be a number of something else is refused: broken models, and answers that are no means.

The independent source of scores is lm-eval's own `hf` backend.
"""

import json
import shutil

import lm_eval
import pandas as pd
import pytest
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from safetensors.torch import load_file, save_file

from mini_study import make_task
from wildmerge.errors import Refusal
from wildmerge.scoring.session import Session
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark, EvaluationSettings

UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    make_task(tmp_path, "mini_one", items=24)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks"


def edit_task(tasks, **changes):
    """Change keys of the task's definition."""
    path = tasks / "mini_one.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def edited(model, folder, change):
    """Copy a model folder with tensors changed in place."""
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def score(model, out, backend="prefix", dtype="float32", **benchmark):
    settings = EvaluationSettings(backend=backend, dtype=dtype)
    evaluation = Evaluation(Benchmark(**({"task": "mini_one"} | benchmark)), "id")
    session = Session([evaluation.benchmark.task], settings, tasks_dir="tasks")
    session.score(model, "model", [evaluation], out)
    return json.loads(evaluation.path(out, "model").read_text())


def values_of(out, metric="acc"):
    """An item's value each, read with pandas, as anyone would."""
    return pd.read_parquet(out / "evals/model/mini_one-id.parquet")[metric].tolist()


def by_lm_eval(model, tasks):
    found = lm_eval.simple_evaluate(
        model=HFLM(str(model), dtype="float32", device="cpu"),
        tasks=["mini_one"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    return found["results"]["mini_one"], found["samples"]["mini_one"]


# --- models ---------------------------------------------------------------------------------------


BROKEN = {
    "lacks model.layers.0.mlp.up_proj.weight": lambda t: t.pop(UP),
    "does not know, model.layers.0.extra.weight": lambda t: t.update(
        {"model.layers.0.extra.weight": torch.zeros(2, 2)}
    ),
    "another shape of model.layers.0.mlp.up_proj.weight": lambda t: t.update(
        {UP: torch.zeros(3, 3)}
    ),
    "holds NaN or infinite values": lambda t: t[UP].view(-1)[7:8].fill_(torch.nan),
}


@pytest.mark.parametrize("backend", ["prefix", "hf"])
@pytest.mark.parametrize("message", BROKEN)
def test_a_model_that_is_not_whole_is_refused(tiny, tasks, tmp_path, backend, message):
    """Transformers fills what is missing at random, and only warns."""
    model = edited(tiny.base, tmp_path / "broken", BROKEN[message])
    with pytest.raises(Refusal, match=message) as refusal:
        score(model, tmp_path / "out", backend)
    assert str(model) in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_weights_too_large_for_the_dtype_of_scoring_are_refused(tiny, tasks, tmp_path):
    model = edited(tiny.base, tmp_path / "large", lambda t: t[UP].view(-1)[:1].fill_(1e6))
    with pytest.raises(Refusal, match="infinite values in float16"):
        score(model, tmp_path / "out", dtype="float16")


def test_log_likelihoods_that_are_no_numbers_are_refused(tiny, tasks, tmp_path):
    """Finite weights whose products overflow: lm-eval takes the first NaN for the best choice."""
    model = edited(tiny.base, tmp_path / "large", lambda t: t[UP].fill_(3e38))
    with pytest.raises(Refusal, match="96 of 96 log-likelihoods are NaN"):
        score(model, tmp_path / "out", "hf")


def test_buffers_of_old_checkpoints_do_not_matter(tiny, tasks, tmp_path):
    buffers = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    model = edited(tiny.base, tmp_path / "old", lambda t: t.update(buffers))
    old, new = (score(folder, tmp_path / folder.name) for folder in (model, tiny.base))
    assert old["metrics"] == new["metrics"]


def test_a_model_that_cannot_answer_is_marked(tiny, tasks, tmp_path):
    equal = edited(tiny.base, tmp_path / "equal", lambda t: [v.zero_() for v in t.values()])
    edit_task(tasks, doc_to_choice=["a", "b", "c", "d"])
    remarks = score(equal, tmp_path / "out")["remarks"]
    assert remarks == ["in 24 of 24 items all choices have the same log-likelihood"]
    edit_task(
        tasks, doc_to_text="once", doc_to_choice=["aaaaaaaaaaaaaaaaaaaaaaaa", "b", "cc", "dd"]
    )
    remarks = score(tiny.base, tmp_path / "same")["remarks"]
    assert remarks == ["answers choice 2 in all 24 items"]


# --- answers --------------------------------------------------------------------------------------


def test_values_between_0_and_1_are_kept_as_they_are(tiny, tasks, tmp_path):
    """As truthfulqa_mc2 gives them: a share of probability."""
    (tasks / "shares.py").write_text(
        "import math\n\n\ndef share(doc, results):\n    p = [math.exp(score) for score, _ in results]\n"
        "    return {'acc': (p[0] + p[1]) / sum(p)}\n"
    )
    path = tasks / "mini_one.yaml"
    one = [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}]
    edit_task(tasks, metric_list=one)
    path.write_text(path.read_text() + "process_results: !function shares.share\n")
    result = score(tiny.base, tmp_path / "out", "hf")
    scores, samples = by_lm_eval(tiny.base, tasks)
    expected = torch.tensor([sample["acc"] for sample in samples], dtype=torch.float64)
    assert values_of(tmp_path / "out") == expected.tolist()
    assert result["metrics"]["acc"]["score"] == pytest.approx(scores["acc,none"], rel=1e-12)
    stderr = float(expected.std() / 24**0.5)
    assert result["metrics"]["acc"]["stderr"] == pytest.approx(stderr, rel=1e-12)
    assert result["chance"] is None


def test_all_metrics_of_a_task_are_in_one_file_as_lm_eval_has_them(tiny, tasks, tmp_path):
    result = score(tiny.base, tmp_path / "out")
    scores, samples = by_lm_eval(tiny.base, tasks)
    for metric in ("acc", "acc_norm"):
        assert result["metrics"][metric]["score"] == pytest.approx(scores[f"{metric},none"])
        assert values_of(tmp_path / "out", metric) == [bool(s[metric]) for s in samples]
    assert (result["schema"], result["model"], result["n"]) == (3, "model", 24)
    assert result["scored_by"] == {"backend": "prefix", "fallback": None}


def test_several_right_choices_make_chance_higher(tiny, tasks, tmp_path):
    edit_task(tasks, doc_to_target="{{[0, 2]}}")
    assert score(tiny.base, tmp_path / "out")["chance"] == 0.5


def test_a_group_that_counts_its_tasks_alike_is_refused_before_a_model_is_loaded(tasks, tmp_path):
    make_task(tmp_path, "mini_two", items=6)
    group = {"group": "both", "task": ["mini_one", "mini_two"]}
    group["aggregate_metric_list"] = [{"metric": "acc", "weight_by_size": False}]
    (tasks / "both.yaml").write_text(yaml.safe_dump(group))
    with pytest.raises(Refusal, match="both: its acc is a mean over its tasks"):
        score(tmp_path / "no model", tmp_path / "out", task="both")
