"""What is stored of an item: exact, small, the same bytes each time, and refused when damaged."""

import json
import math
import random

import lm_eval
import numpy as np
import pandas as pd
import pytest
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from mini_study import make_study, make_task
from wildmerge.cli.main import main
from wildmerge.errors import Refusal
from wildmerge.jobs.run import run_job
from wildmerge.planning.lock import Lock, lock_path
from wildmerge.planning.models import list_jobs
from wildmerge.scoring.items import read_items, read_likelihoods, read_values, write_answers
from wildmerge.scoring.session import Session
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark, EvaluationSettings, load_study
from wildmerge.tasks.questions import hash_of_question


def realistic(count, seed=0):
    """Answers as a model gives them: random rights and wrongs, random log-likelihoods."""
    draw = np.random.default_rng(seed)
    gold = (-draw.gamma(2, 8, count)).astype(np.float32)
    other = (gold + draw.normal(0, 3, count)).astype(np.float32)
    values = {"acc": (gold > other) * 1.0, "acc_norm": (draw.random(count) < 0.5) * 1.0}
    return values, gold, other


# --- the file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1000, 10_042])
def test_an_item_takes_at_most_ten_bytes_a_model(tmp_path, count):
    path = write_answers(tmp_path / "a.parquet", *realistic(count))
    assert path.stat().st_size <= 8 * count  # leaves two for the JSON beside it, see below


def test_what_was_written_is_read_again_and_pandas_reads_it_too(tmp_path):
    values, gold, other = realistic(300)
    values["share"] = np.random.default_rng(1).random(300)
    other[:7] = math.nan
    path = write_answers(tmp_path / "a.parquet", values, gold, other)
    right = read_values(path, "acc", 300, values["acc"].mean())
    assert right.dtype == np.int8
    assert right.tolist() == values["acc"].tolist()
    share = read_values(path, "share", 300, math.fsum(values["share"]) / 300)
    assert share.dtype == np.float64
    assert share.tolist() == values["share"].tolist()
    for found, wanted in zip(read_likelihoods(path), (gold, other), strict=True):
        np.testing.assert_array_equal(found, wanted)
    frame = pd.read_parquet(path)
    assert frame.dtypes.astype(str).to_dict() == {
        **{"acc": "bool", "acc_norm": "bool", "share": "float64"},
        **{"gold": "float32", "other": "float32"},
    }
    assert frame["other"].isna().sum() == 7


def test_the_same_answers_are_the_same_bytes(tmp_path):
    first, second = (write_answers(tmp_path / name, *realistic(500)) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_damaged_file_is_one_line_that_names_it(tmp_path):
    """Cut anywhere, or any byte changed: read as it was written, or refused; never a traceback."""
    values, gold, other = realistic(40)
    path = write_answers(tmp_path / "a.parquet", values, gold, other)
    whole, score = path.read_bytes(), values["acc"].mean()

    def read():
        return [read_values(path, "acc", 40, score), *read_likelihoods(path)]

    wanted = [array.tolist() for array in read()]
    damaged = [whole[:cut] for cut in range(0, len(whole), 23)]
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 0x41
        damaged.append(bytes(changed))
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            assert [array.tolist() for array in read()] == wanted
        except Refusal as refusal:
            refused += 1
            assert str(path) in str(refusal) and "\n" not in str(refusal)
    assert refused > 0.7 * len(damaged)  # the rest is acc_norm, which was not read, and names


@pytest.mark.parametrize(
    ("metric", "count", "score", "words"),
    [
        ("f1", 40, 0.5, "no column 'f1'"),
        ("acc", 41, 0.5, "has 40 items and its result 41"),
        ("acc", 40, 2.0, "mean of acc is not the result's score"),
    ],
)
def test_answers_of_another_result_are_refused(tmp_path, metric, count, score, words):
    path = write_answers(tmp_path / "a.parquet", *realistic(40))
    with pytest.raises(Refusal, match=words):
        read_values(path, metric, count, score)


# --- what is in it --------------------------------------------------------------------------------


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    make_task(tmp_path, "mini_one", items=24)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "tasks"


def edit_task(tasks, **changes):
    path = tasks / "mini_one.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))


def score(model, out, task="mini_one"):
    evaluation = Evaluation(Benchmark(task=task), "id")
    settings = EvaluationSettings(backend="hf", dtype="float32")
    session = Session([task], settings, tasks_dir="tasks")
    session.score(model, "model", [evaluation], out)
    return read_likelihoods(evaluation.answers(out, "model")), read_items(evaluation.items(out))


def by_lm_eval(model, tasks):
    found = lm_eval.simple_evaluate(
        model=HFLM(str(model), dtype="float32", device="cpu"),
        tasks=["mini_one"],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        bootstrap_iters=0,
    )
    return found["samples"]["mini_one"]


@pytest.mark.parametrize("right", [None, [0, 2]])
def test_log_likelihoods_are_those_of_lm_eval(tiny, tasks, tmp_path, right):
    """Of several right choices the best one's."""
    if right:
        edit_task(tasks, doc_to_target=f"{{{{{right}}}}}")
    (gold, other), items = score(tiny.base, tmp_path / "out")
    assert (tmp_path / "out/evals/model/mini_one-id.json").stat().st_size < 2000
    samples = by_lm_eval(tiny.base, tasks)
    for number, sample in enumerate(samples):
        scores = [value for value, _ in sample["filtered_resps"]]
        rights = right or [sample["target"]]
        assert gold[number] == np.float32(max(scores[i] for i in rights))
        assert other[number] == np.float32(max(s for i, s in enumerate(scores) if i not in rights))
    assert items.doc_hash == [sample["doc_hash"][:16] for sample in samples]
    assert items.choices.tolist() == [4] * 24
    assert items.gold_bytes.tolist() == [3] * 24
    assert items.clusters() is None


def test_a_text_scored_alone_has_no_other_choice(tiny, tasks, tmp_path):
    edit_task(
        tasks,
        output_type="loglikelihood",
        doc_to_choice=None,
        doc_to_target="{{choices[0]}}é",
        metric_list=[{"metric": "acc"}],
    )
    (gold, other), items = score(tiny.base, tmp_path / "out")
    assert gold.tolist() == [
        np.float32(sample["filtered_resps"][0][0]) for sample in by_lm_eval(tiny.base, tasks)
    ]
    assert np.isnan(other).all()
    assert items.choices.tolist() == [0] * 24
    assert items.gold_bytes.tolist() == [5] * 24  # three letters and one of two bytes


def test_several_contexts_of_one_continuation(tiny, tasks, tmp_path):
    """As WinoGrande: the number of the right context, and the bytes of what follows all of them."""
    edit_task(
        tasks, doc_to_text="answer", doc_to_target="{{question}}", doc_to_choice="{{choices}}"
    )
    (gold, other), items = score(tiny.base, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "data/mini_one.jsonl").open()]
    for number, sample in enumerate(by_lm_eval(tiny.base, tasks)):
        scores = [value for value, _ in sample["filtered_resps"]]
        assert gold[number] == np.float32(scores.pop(rows[number]["answer"]))
        assert other[number] == np.float32(max(scores))
    assert items.gold_bytes.tolist() == [7] * 24


def test_a_question_asked_again_is_one_cluster(tiny, tasks, tmp_path):
    """Whatever its choices, case and blanks; about another passage it is another question."""
    draw = random.Random(0)
    asked = ["Who  wrote it?", "who wrote it? ", "WHO WROTE IT?", "Why?", "Who wrote it?"]
    rows = [
        {"question": text, "choices": draw.sample(["aa", "bb", "cc", "dd"], 4), "answer": 0}
        for text in asked
    ]
    rows[-1]["passage"] = "A poem."
    text = "".join(json.dumps({"passage": None} | row) + "\n" for row in rows)
    (tmp_path / "data/mini_one.jsonl").write_text(text)
    _, items = score(tiny.base, tmp_path / "out")
    clusters = items.clusters()
    assert clusters[0] == clusters[1] == clusters[2]
    assert len({*clusters.tolist()}) == 3
    assert items.question[0] == hash_of_question("who wrote it?")


def test_a_question_in_two_languages_is_one_cluster(tiny, tmp_path):
    """HEAD-QA's documents share the exam's name and the question's number, not the words."""
    for language, words in (("en", "who?"), ("es", "¿quién?")):
        folder = tmp_path / f"headqa_{language}"
        folder.mkdir()
        rows = [
            {"name": "Exam", "qid": number, "qtext": words, "ra": 1}
            | {"answers": [{"atext": letter} for letter in "abcd"]}
            for number in range(3)
        ]
        (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    session = Session(["headqa"], EvaluationSettings(backend="hf"), task_data=str(tmp_path))
    evaluation = Evaluation(Benchmark(task="headqa"), "id")
    session.score(tiny.base, "model", [evaluation], tmp_path / "out")
    clusters = read_items(evaluation.items(tmp_path / "out")).clusters()
    assert clusters[:3].tolist() == clusters[3:].tolist()
    assert len({*clusters.tolist()}) == 3


def test_a_metric_called_as_a_column_of_log_likelihoods_is_refused(tasks, tmp_path):
    code = "def scores(doc, results):\n    return {'acc': 1, 'gold': 1}\n"
    (tasks / "own.py").write_text(code)
    metrics = [{"metric": m, "aggregation": "mean"} for m in ("acc", "gold")]
    edit_task(tasks, metric_list=metrics)
    with (tasks / "mini_one.yaml").open("a") as stream:
        stream.write("process_results: !function own.scores\n")
    with pytest.raises(Refusal, match="a metric is called 'gold'"):
        score(tmp_path / "no model", tmp_path / "out")


# --- when it is written ---------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A study's base and experts, scored."""
    monkeypatch.chdir(tmp_path)
    path = make_study(tmp_path, ["llama"])
    assert main(["lock", str(path)]) == 0
    study, lock = load_study(path), Lock.read(lock_path(path))
    job = list_jobs(study, lock)[0]

    def run():
        run_job(study, lock, job, tmp_path / "results")
        return {file: file.read_bytes() for file in (tmp_path / "results").glob("[ei]*/**/*.*")}

    return run


def test_what_is_gone_is_made_again_as_it_was(job, tmp_path):
    """Answers by scoring that model again, what all share without a model."""
    first = job()
    assert len([*tmp_path.glob("results/items/*.parquet")]) == 2
    answers = next(tmp_path.glob("results/evals/*/*.parquet"))
    results = {p: p.stat().st_mtime_ns for p in tmp_path.glob("results/evals/*/*.json")}
    answers.unlink()
    assert job() == first
    again = {p: p.stat().st_mtime_ns for p in results}
    assert [p.stem for p in results if results[p] != again[p]] == [answers.stem]
    shared = next(tmp_path.glob("results/items/*.parquet"))
    shared.unlink()
    assert job() == first
    assert {p: p.stat().st_mtime_ns for p in results} == again  # no model was scored


def test_other_items_under_the_same_id_are_never_scored(tiny, tasks, tmp_path):
    score(tiny.base, tmp_path / "out")
    rows = (tmp_path / "data/mini_one.jsonl").read_text().splitlines()
    (tmp_path / "data/mini_one.jsonl").write_text("\n".join(rows[::-1]))
    (tmp_path / "out/evals/model/mini_one-id.json").unlink()
    with pytest.raises(Refusal, match=r"items/id.parquet: models were asked other items before"):
        score(tiny.base, tmp_path / "out")
    assert not (tmp_path / "out/evals/model/mini_one-id.json").exists()
