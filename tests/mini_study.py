"""A study small enough for tests: two tiny bases, three experts each, two multiple-choice tasks."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import yaml

from tiny_models import make_family

TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: acc_norm
metadata:
  version: 1.0
"""


def make_study(folder: Path, bases: Sequence[str] = ("llama", "qwen3"), **changes) -> Path:
    """Write checkpoints, tasks and study.yaml below `folder`; return the study file.

    Paths in the study are relative, so it must be run from `folder`.
    """
    entries = {}
    for name in bases:
        family = make_family(folder / "checkpoints" / name, name)
        experts = {e.name: str(e.relative_to(folder)) for e in family.experts}
        entries[name] = {"checkpoint": str(family.base.relative_to(folder)), "experts": experts}
    for task in ("mini_one", "mini_two", "mini_three"):
        make_task(folder, task)
    study = {
        "name": "mini",
        "bases": entries,
        "methods": ["task_arithmetic", "ties", "iso_c"],
        "sizes": [2, 3],
        "subsets": 2,
        "benchmarks": ["mini_one", {"task": "mini_two", "metric": "acc_norm"}],
        "tasks_dir": "tasks",
        "evaluation": {"backend": "hf", "dtype": "float32"},
    }
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study | changes, sort_keys=False))
    return path


def make_task(folder: Path, name: str, items: int = 16) -> None:
    """Write one multiple-choice task: its YAML in tasks/ and its items in data/."""
    generator = random.Random(name)
    letters = "abcdefghijklmnopqrstuvwxyz"
    rows = []
    for _ in range(items):
        choices = ["".join(generator.choices(letters, k=3)) for _ in range(4)]
        question = "".join(generator.choices(letters, k=6)) + "?"
        rows.append({"question": question, "choices": choices, "answer": generator.randrange(4)})
    (folder / "data").mkdir(exist_ok=True)
    (folder / "tasks").mkdir(exist_ok=True)
    data = folder / "data" / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "tasks" / f"{name}.yaml").write_text(
        TASK.format(name=name, data=data.relative_to(folder))
    )
