"""A benchmark is known by lm-eval's names, decided by its definition and data, and loaded in one way."""

import json
import random
import shutil
from pathlib import Path

import pytest
import yaml
from lm_eval.tasks import TaskManager

from mini_study import make_task
from wildmerge.errors import Refusal
from wildmerge.study.file import Benchmark
from wildmerge.tasks.checks import check_benchmark
from wildmerge.tasks.definitions import Function, members_of
from wildmerge.tasks.digests import lock_task
from wildmerge.tasks.index import own_tasks, stock_tasks, tasks_index, unknown_task
from wildmerge.tasks.loading import Loader

KINDS = {"TASK": "task", "PY_TASK": "class", "GROUP": "group", "TAG": "tag"}
SHUFFLE = """import random


def shuffled(documents):
    def one(document):
        choices = list(document["choices"])
        right = choices[document["answer"]]
        random.shuffle(choices)
        return {**document, "choices": choices, "answer": choices.index(right)}

    return documents.map(one)
"""


def change(path, **keys):
    """Change keys of a task's YAML; text that begins with `!function` stays one."""
    content = yaml.safe_load(path.read_text()) | keys
    text = yaml.safe_dump({k: v for k, v in content.items() if v is not None})
    path.write_text(text.replace("'!function", "!function").replace("d'\n", "d\n"))


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_task(tmp_path, "one")
    make_task(tmp_path, "two")
    return tmp_path / "tasks"


@pytest.fixture(scope="module")
def theirs():
    return TaskManager().task_index


def test_all_names_of_lm_eval_are_known_as_lm_eval_knows_them(theirs):
    ours = stock_tasks()
    assert ours.keys() == theirs.keys()
    for name, entry in theirs.items():
        mine = ours[name]
        assert (mine.kind, mine.path) == (KINDS[entry.kind.name], entry.yaml_path), name
        if mine.kind == "tag":
            assert set(mine.members) == entry.tags, name


@pytest.mark.parametrize(
    ("name", "count"),
    [("anli", 3), ("ai2_arc", 2), ("truthfulqa", 3), ("mmlu", 57), ("leaderboard_bbh", 24)],
)
def test_groups_and_tags_have_all_their_members(name, count):
    assert len(members_of(stock_tasks(), name).tasks) == count


def test_a_group_whose_tasks_share_a_name_is_refused():
    with pytest.raises(Refusal, match="lm-eval keeps one of several tasks"):
        members_of(stock_tasks(), "openllm")


def test_an_unknown_name_is_answered_with_a_few_near_ones(tasks):
    (tasks / "two.yaml").rename(tasks / "two.yml")
    assert "did you mean 'one'" in unknown_task("onne", str(tasks))
    assert "rename" in unknown_task("two", str(tasks))
    assert len(unknown_task("no_such_thing_at_all", str(tasks))) < 300


def test_own_groups_and_tags_are_those_of_lm_eval(tasks):
    for name in ("one", "two"):
        change(tasks / f"{name}.yaml", tag=["mine", "others"])
    (tasks / "both.yaml").write_text(yaml.safe_dump({"group": "both", "task": ["one", "two"]}))
    theirs = TaskManager(include_path=str(tasks), include_defaults=False)
    assert own_tasks(str(tasks)).keys() == theirs.task_index.keys()
    for name in ("mine", "others", "both"):
        loaded = Loader([name], str(tasks)).load(Benchmark(task=name))
        assert [*loaded["tasks"]] == [*theirs.load([name])["tasks"]] == ["one", "two"]


def digest(tasks, name="one"):
    return lock_task(tasks_index(str(tasks)), name, None, lambda name, revision: "c" * 40)


def test_what_an_include_says_the_code_it_calls_and_its_data_count_and_places_do_not(
    tasks, tmp_path
):
    change(tasks / "one.yaml", include="shared.part", doc_to_text=None)
    (tasks / "shared.part").write_text("doc_to_text: !function helpers.text\n")
    (tasks / "helpers.py").write_text("from more import text\n")
    (tasks / "more.py").write_text(
        "WORDS = 'words.txt'\n\n\ndef text(doc):\n    return doc['question']\n"
    )
    (tasks / "words.txt").write_text("a")
    seen = [digest(tasks)]
    assert members_of(own_tasks(str(tasks)), "one").tasks["one"]["doc_to_text"] == Function(
        tasks.resolve(), "helpers.text"
    )
    for file in ("shared.part", "helpers.py", "more.py", "words.txt", "../data/one.jsonl"):
        with (tasks / file).open("a") as stream:
            stream.write("\ndescription: other\n" if file == "shared.part" else "\n")
        seen.append(digest(tasks))
    assert len({json.dumps(each) for each in seen}) == len(seen)
    (tasks / "unrelated.py").write_text("")
    assert digest(tasks) == seen[-1]
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    files = {"data_files": {"test": "elsewhere/one.jsonl"}}
    change(tasks / "one.yaml", dataset_kwargs=files)
    moved = digest(tasks)
    assert moved["definition"] == seen[-1]["definition"]
    assert [*moved["data"].values()] == [*seen[-1]["data"].values()]


def test_a_data_set_of_the_hub_is_locked_by_its_commit(tasks):
    change(tasks / "one.yaml", dataset_path="org/questions", dataset_kwargs={"revision": "v2"})
    assert digest(tasks)["data"] == {"hub org/questions@v2": "c" * 40}
    change(
        tasks / "one.yaml",
        dataset_path="json",
        dataset_kwargs={"data_files": {"test": "hf://datasets/org/questions/test.jsonl"}},
    )
    assert digest(tasks)["data"] == {"hub org/questions@main": "c" * 40}
    files = {"data_files": "https://example.org/test.jsonl"}
    change(tasks / "one.yaml", dataset_kwargs=files)
    with pytest.raises(Refusal, match="cannot be locked"):
        digest(tasks)


def test_a_job_loads_only_what_was_locked(tasks):
    benchmark, locked = Benchmark(task="one"), {"one": digest(tasks)}
    Loader(["one"], str(tasks), None, locked).load(benchmark)
    before = Path("data/one.jsonl").read_text()
    Path("data/one.jsonl").write_text(before + before)
    with pytest.raises(Refusal, match=r"data data/one\.jsonl changed since it was locked"):
        Loader(["one"], str(tasks), None, locked).load(benchmark)
    Path("data/one.jsonl").write_text(before)
    change(tasks / "one.yaml", description="Answer.")
    with pytest.raises(Refusal, match="its definition .* changed since it was locked"):
        Loader(["one"], str(tasks), None, locked).load(benchmark)


def shuffled_choices(tasks, *order):
    """Load benchmarks in an order; return the choices of each as they will be asked."""
    loader = Loader(order, str(tasks))
    found = {}
    for name in order:
        task = loader.load(Benchmark(task=name))["tasks"][name]
        found[name] = [document["choices"] for _, document in task.doc_iterator()]
        assert [d["choices"] for _, d in task.doc_iterator()] == found[name], "shuffled twice"
    return found


def test_choices_shuffled_while_loading_follow_from_the_seed_alone(tasks):
    """Neither what was drawn before, nor the order of loading, nor a cache of `datasets` counts."""
    (tasks / "helpers.py").write_text(SHUFFLE)
    for name in ("one", "two"):
        change(tasks / f"{name}.yaml", process_docs="!function helpers.shuffled")
    random.seed(99)  # an earlier process loaded them with another seed, which `datasets` remembers
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    cached = manager.load(["one"])["tasks"]["one"]
    first = shuffled_choices(tasks, "one", "two")
    random.seed(5)
    assert shuffled_choices(tasks, "two", "one") == first
    assert [document["choices"] for _, document in cached.doc_iterator()] != first["one"]
    written = [
        json.loads(line)["choices"] for line in Path("data/one.jsonl").read_text().splitlines()
    ]
    generator = random.Random(0)
    for choices in written:
        generator.shuffle(choices)
    assert first["one"] == written


def check(tasks, metric="acc", name="one", limit=None):
    benchmark = Benchmark(task=name, metric=metric, limit=limit)
    return check_benchmark(benchmark, Loader([name], str(tasks)).load(benchmark))


def test_the_digest_of_what_is_asked_knows_the_order_of_items_and_choices(tasks):
    path = Path("data/one.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    swapped = [rows[0] | {"choices": rows[0]["choices"][::-1], "answer": 3 - rows[0]["answer"]}]
    found = []
    for items in (rows, rows[::-1], swapped + rows[1:]):
        path.write_text("".join(json.dumps(row) + "\n" for row in items))
        found.append(check(tasks))
    assert len({*found, check(tasks, limit=3)}) == 4


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"output_type": "generate_until", "doc_to_choice": None}, "output type is generate_until"),
        ({"metric_list": [{"metric": "acc"}, {"metric": "f1"}]}, "f1 is no mean over items"),
        ({"metric_list": [{"metric": "acc"}]}, "unknown metric 'f1'"),
        ({"doc_to_target": "{{0 - 1}}"}, "16 of 16 items have no answer"),
    ],
)
def test_what_cannot_be_scored_is_refused(tasks, keys, reason):
    change(tasks / "one.yaml", **keys)
    with pytest.raises(Refusal, match=reason):
        check(tasks, metric="acc" if "item" in reason and "mean" not in reason else "f1")
