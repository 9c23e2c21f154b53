"""Where a benchmark's definition and data come from: the study's own folder, or lm-eval's stock tasks.

lm-eval's own index of its 14,000 task files takes 10-20 s to build; a look at the names alone takes half
a second and tells the one folder that has to be indexed. A stock task runs on local data through a small
YAML made at run time, which includes the stock file and replaces where the data come from.
"""

from __future__ import annotations

import importlib.util
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from wildmerge.errors import Refusal
from wildmerge.lock import own_tasks
from wildmerge.study import Study
from wildmerge.words import unknown

_NAME = re.compile(rb"^(?:task|group|tag): *[\"']?([A-Za-z0-9_.+-]+)", re.MULTILINE)


@cache
def stock_tasks() -> dict[str, Path]:
    """Return the file that defines each task, group or tag of the installed lm-eval, by name."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise Refusal("lm-eval is not installed; install wildmerge[eval]")
    found: dict[str, Path] = {}
    for folder, _, files in os.walk(Path(spec.submodule_search_locations[0], "tasks")):
        for file in sorted(files):
            if file.endswith((".yaml", ".yml")):
                path = Path(folder, file)
                for name in _NAME.findall(path.read_bytes()):
                    found.setdefault(name.decode(), path)
    return found


def check_benchmarks(study: Study, where: str) -> None:
    """Refuse a study with a benchmark that neither its tasks_dir nor lm-eval defines."""
    own = own_tasks(study.tasks_dir)
    for index, benchmark in enumerate(study.benchmarks):
        if benchmark.task not in own and benchmark.task not in stock_tasks():
            problem = unknown("benchmark", benchmark.task, [*own, *stock_tasks()])
            raise Refusal(f"{where}: benchmarks[{index}]: {problem}")


def include_paths(
    tasks: list[str], tasks_dir: str | None, task_data: str | None, scratch: Path
) -> list[Path]:
    """Return the folders that lm-eval must index to know these tasks.

    Args:
        tasks: task or group names.
        tasks_dir: folder of own task YAMLs.
        task_data: folder <task>/<split>.jsonl whose files replace a stock task's data.
        scratch: an existing folder for the YAMLs that do so.

    Raises:
        Refusal: a task is known nowhere.
    """
    own = own_tasks(tasks_dir)
    found = [Path(tasks_dir)] if tasks_dir else []
    for task in tasks:
        if task in own:
            continue
        if task not in stock_tasks():
            raise Refusal(unknown("benchmark", task, [*own, *stock_tasks()]))
        data = Path(task_data or "", task)
        if task_data and data.is_dir():
            write_replacement(task, data, scratch)
        else:
            found.append(stock_tasks()[task].parent)
    return [*found, scratch]


def write_replacement(task: str, data: Path, scratch: Path) -> None:
    """Write the YAML by which a stock task reads the splits <data>/<split>.jsonl instead of the hub."""
    splits = {path.stem: str(path.resolve()) for path in sorted(data.glob("*.jsonl"))}
    if not splits:
        raise Refusal(f"{data}: no <split>.jsonl in it; fetch the data of '{task}' again")
    content: dict[str, Any] = {
        "include": str(stock_tasks()[task]),
        "task": task,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": splits},
    }
    stock = _stock_definition(stock_tasks()[task])
    for key in ("training_split", "validation_split", "test_split", "fewshot_split"):
        if stock.get(key) not in {*splits, None}:
            content[key] = None
    (scratch / f"{task}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")


def _stock_definition(path: Path) -> dict[str, Any]:
    """Return a stock YAML's keys with those of the files it includes (functions left out)."""
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoFunctions)
    if "include" in content:
        return _stock_definition(path.parent / content["include"]) | content
    return dict(content)


class _NoFunctions(yaml.SafeLoader):
    """Reads task YAMLs without importing the Python functions that they name."""


_NoFunctions.add_multi_constructor("!", lambda loader, suffix, node: None)
