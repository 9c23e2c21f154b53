"""Scores are lm-eval's own, each result is durable on its own, and nothing is computed twice."""

import json
import shutil

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mini_study import make_task
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.scoring.items import read_items, read_values
from wildmerge.scoring.progress import RequestsBar
from wildmerge.scoring.result import read_result
from wildmerge.scoring.session import Session
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark, EvaluationSettings
from wildmerge.tasks.index import stock_tasks

FEWSHOT = {"num_fewshot": 3}


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    for name in ("mini_one", "mini_two"):
        make_task(tmp_path, name, items=24)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks"


def score(folder, tasks_dir, out, benchmarks, *, session=None, backend="hf"):
    session = session or Session(
        [b.task for b in benchmarks],
        EvaluationSettings(backend=backend, dtype="float32"),
        tasks_dir=str(tasks_dir),
    )
    evaluations = [Evaluation(b, b.name) for b in benchmarks]
    session.score(folder, "model", evaluations, out)
    return {e.benchmark.name: read_result(e.path(out, "model"), "model", e) for e in evaluations}


@pytest.mark.parametrize("backend", ["hf", "prefix"])
@pytest.mark.parametrize("fewshot", [None, 3])
def test_scores_are_those_of_lm_eval(tiny_qwen3, tasks, tmp_path, backend, fewshot):
    benchmark = Benchmark(task="mini_one", metric="acc_norm", num_fewshot=fewshot, limit=20)
    ours = score(tiny_qwen3.base, tasks, tmp_path / "out", [benchmark], backend=backend)["mini_one"]
    theirs = lm_eval.simple_evaluate(
        model=HFLM(str(tiny_qwen3.base), dtype="float32", device="cpu"),
        tasks=["mini_one"],
        num_fewshot=fewshot,
        limit=20,
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    samples = theirs["samples"]["mini_one"]
    answers = tmp_path / "out/evals/model/mini_one-mini_one.parquet"
    for metric in ("acc", "acc_norm"):  # another metric of the same answers costs nothing
        score_of = theirs["results"]["mini_one"][f"{metric},none"]
        assert ours["metrics"][metric]["score"] == score_of
        values = read_values(answers, metric, 20, score_of)
        assert values.tolist() == [int(s[metric]) for s in samples]
    items = read_items(tmp_path / "out/items/mini_one.parquet")
    assert items.doc_hash == [s["doc_hash"][:16] for s in samples]
    assert (ours["n"], ours["chance"]) == (20, 0.25)
    assert ours["settings"]["num_fewshot"] == (fewshot or 0)
    if backend == "prefix":
        assert ours["tokens"]["requests"] == 20 * 4
        assert 0 < ours["tokens"]["computed"] < ours["tokens"]["naive"]


def test_every_model_of_a_process_sees_the_same_examples(tiny, tasks, tmp_path):
    """Few-shot examples are drawn anew for each model, though tasks are loaded once."""
    benchmark = Benchmark(task="mini_one", **FEWSHOT)
    session = Session(["mini_one"], EvaluationSettings(backend="hf"), tasks_dir=str(tasks))
    folders = [tiny.base, tiny.experts[0], tiny.base]
    first, _, again = (
        score(folder, tasks, tmp_path / str(i), [benchmark], session=session)
        for i, folder in enumerate(folders)
    )
    assert first["mini_one"]["metrics"] == again["mini_one"]["metrics"]
    assert first["mini_one"]["documents"] == again["mini_one"]["documents"]


def test_an_existing_result_is_left_alone(tiny, tasks, tmp_path):
    one, two = Benchmark(task="mini_one"), Benchmark(task="mini_two")
    score(tiny.base, tasks, tmp_path / "out", [one])
    (file,) = tmp_path.glob("out/evals/*/mini_one*.json")
    before = file.stat().st_mtime_ns
    score(tiny.base, tasks, tmp_path / "out", [one, two])
    assert file.stat().st_mtime_ns == before


def test_what_cannot_be_scored_is_refused_before_anything_is(tiny, tasks, tmp_path):
    good, bad = Benchmark(task="mini_one"), Benchmark(task="mini_two", metric="accc")
    with pytest.raises(Refusal, match="mini_two: unknown metric 'accc'; did you mean 'acc'"):
        score(tmp_path / "no model", tasks, tmp_path / "out", [good, bad])
    assert not (tmp_path / "out").exists()


def test_requests_are_counted_over_all_benchmarks(tiny, tasks, tmp_path):
    benchmarks = [Benchmark(task="mini_one"), Benchmark(task="mini_two", limit=10)]
    for backend in ("prefix", "hf"):
        session = Session(
            ["mini_one", "mini_two"], EvaluationSettings(backend=backend), tasks_dir=str(tasks)
        )
        asked = [Evaluation(b, b.name) for b in benchmarks]
        progress = {"results": tmp_path / backend, "on_built": None, "on_scored": None}
        with RequestsBar("tiny", asked * 2, disable=False) as bar:
            progress |= {"on_built": bar.expect, "on_scored": bar.update}
            session.score(tiny.base, "tiny", asked, **progress)
            assert session.requests == {"mini_one": 24 * 4, "mini_two": 10 * 4}
            assert (bar.n, bar.total) == (34 * 4, 2 * 34 * 4)


def test_requests_are_built_once_for_all_models_of_a_process(tiny, tasks, tmp_path, monkeypatch):
    session = Session(["mini_one"], EvaluationSettings(), tasks_dir=str(tasks))
    benchmark = Benchmark(task="mini_one", num_fewshot=2)
    first = score(tiny.base, tasks, tmp_path / "first", [benchmark], session=session)
    monkeypatch.setattr("lm_eval.api.task.Task.build_all_requests", None)  # not called again
    other = score(tiny.experts[0], tasks, tmp_path / "other", [benchmark], session=session)
    again = score(tiny.base, tasks, tmp_path / "again", [benchmark], session=session)
    assert again == first != other


def test_a_model_without_tokenizer_is_refused(tiny, tasks, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).symlink_to(tiny.base / name)
    with pytest.raises(Refusal, match="no tokenizer"):
        score(bare, tasks, tmp_path / "out", [Benchmark(task="mini_one")])


def test_command_line_scores_and_refuses(tiny, tasks, tmp_path, capsys):
    shared = ["--tasks-dir", str(tasks), "--out", str(tmp_path / "out"), "--dtype", "float32"]
    assert main(["evaluate", str(tiny.base), "--tasks", "mini_one", *shared]) == 0
    assert "acc" in capsys.readouterr().out
    assert main(["evaluate", str(tiny.base), "--tasks", "mini_ones", *shared]) == 1
    assert "did you mean 'mini_one'?" in capsys.readouterr().err


def test_models_with_other_chat_templates_are_asked_by_their_own(tiny, tasks, tmp_path):
    session = Session(["mini_one"], EvaluationSettings(chat_template=True), tasks_dir=str(tasks))
    tokens = []
    for name, opening in (("short", "a"), ("long", "abcdef"), ("again", "a")):
        shutil.copytree(tiny.base, tmp_path / name)
        template = opening + "{% for message in messages %}{{ message.content }}{% endfor %}"
        (tmp_path / name / "chat_template.jinja").write_text(template)
        result = score(
            tmp_path / name,
            tasks,
            tmp_path / f"of-{name}",
            [Benchmark(task="mini_one")],
            session=session,
        )
        tokens.append(result["mini_one"]["tokens"]["naive"])
    assert tokens == [tokens[0], tokens[0] + 5 * 24 * 4, tokens[0]]


# --- stock tasks ----------------------------------------------------------------------------------


PAPER = (
    "arc_easy arc_challenge hellaswag winogrande boolq piqa openbookqa commonsense_qa headqa prost "
    "truthfulqa_mc1 mmlu medmcqa leaderboard_gpqa leaderboard_bbh leaderboard_mmlu_pro"
).split()


def test_the_sixteen_benchmarks_of_the_paper_are_found():
    assert [task for task in PAPER if task not in stock_tasks()] == []


def test_a_group_with_data_for_some_members_names_the_hub_set_of_the_others(tmp_path):
    (tmp_path / "mmlu_anatomy").mkdir()
    row = {"question": "who?", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": "anatomy"}
    for split in ("dev", "test"):
        (tmp_path / f"mmlu_anatomy/{split}.jsonl").write_text(json.dumps(row) + "\n")
    session = Session(["mmlu"], EvaluationSettings(), task_data=str(tmp_path))
    with pytest.raises(Refusal, match="benchmark mmlu: its data cannot be read .*cais/mmlu"):
        session.check([Benchmark(task="mmlu")])


def test_a_stock_task_runs_on_local_data(tiny, tmp_path):
    rows = [
        {
            "id": str(i),
            "question": "what is next?",
            "answerKey": "B",
            "choices": {"text": ["one", "two", "three"], "label": ["A", "B", "C"]},
        }
        for i in range(6)
    ]
    (tmp_path / "data/arc_easy").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data/arc_easy/test.jsonl").write_text(text)
    session = Session(["arc_easy"], EvaluationSettings(), task_data=str(tmp_path / "data"))
    benchmark = Benchmark(task="arc_easy", metric="acc_norm")
    result = score(tiny.base, None, tmp_path / "out", [benchmark], session=session)["arc_easy"]
    assert result["n"] == 6
    assert result["chance"] == pytest.approx(1 / 3)


GPQA = {
    "Question": "who?",
    "Correct Answer": "a",
    **{f"Incorrect Answer {i}": "b" for i in (1, 2, 3)},
}
HEADQA = {"qtext": "who?", "ra": 1, "answers": [{"atext": text} for text in "abcd"]}


@pytest.mark.parametrize("name", ["leaderboard_gpqa", "headqa"])
def test_groups_and_tags_are_scored_over_all_items(tiny, tmp_path, name):
    """lm-eval gives a score for a group, as `leaderboard_gpqa` is; none for a tag, as `headqa` is."""
    metric, file, row, members = {
        "leaderboard_gpqa": ("acc_norm", "train.jsonl", GPQA, ("diamond", "extended", "main")),
        "headqa": ("acc", "test.jsonl", HEADQA, ("en", "es")),
    }[name]
    for count, member in enumerate(members, start=3):
        folder = tmp_path / f"{name}_{member}"
        folder.mkdir()
        (folder / file).write_text((json.dumps(row) + "\n") * count)
    session = Session([name], EvaluationSettings(), task_data=str(tmp_path))
    benchmark = Benchmark(task=name, metric=metric)
    result = score(tiny.base, None, tmp_path / "out", [benchmark], session=session)[name]
    score_of = result["metrics"][metric]["score"]
    assert result["n"] == sum(range(3, 3 + len(members)))
    answers = tmp_path / f"out/evals/model/{name}-{name}.parquet"
    assert read_values(answers, metric, result["n"], score_of).mean() == pytest.approx(score_of)
    items = read_items(tmp_path / f"out/items/{name}.parquet")
    assert sorted({*items.task}) == [f"{name}_{member}" for member in members]
    assert len({*items.question}) == 1 and items.clusters() is not None  # one question, many times
