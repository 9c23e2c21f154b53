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

from wildmerge.errors import Refusal, unknown
from wildmerge.study.file import Study

_NAME = re.compile(rb"^[\"']?(task|group|tag)[\"']?: *[\"']?([A-Za-z0-9_.+-]+)", re.MULTILINE)
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@cache
def stock_tasks() -> dict[str, Path]:
    """Return the file that defines each task, group or tag of the installed lm-eval, by name."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise Refusal("lm-eval is not installed; install wildmerge[eval]")
    found: dict[str, dict[str, Path]] = {"task": {}, "group": {}, "tag": {}}
    for folder, below, files in os.walk(Path(spec.submodule_search_locations[0], "tasks")):
        below.sort()
        for file in sorted(files):
            if file.endswith((".yaml", ".yml")):
                path = Path(folder, file)
                for kind, name in _NAME.findall(path.read_bytes()):
                    found[kind.decode()].setdefault(name.decode(), path)
    return found["tag"] | found["group"] | found["task"]


def check_benchmarks(study: Study, where: str) -> None:
    """Refuse a study with a benchmark that neither its tasks_dir nor lm-eval defines."""
    own = own_tasks(study.tasks_dir)
    for index, benchmark in enumerate(study.benchmarks):
        if benchmark.task not in own and benchmark.task not in stock_tasks():
            problem = unknown("benchmark", benchmark.task, [*own, *stock_tasks()])
            raise Refusal(f"{where}: benchmarks[{index}]: {problem}")


def definition_files(study: Study, task: str) -> list[Path]:
    """Return the YAML of a task of the study's own folder, and the local data that it names."""
    own = own_tasks(study.tasks_dir)
    if task not in own:
        return []
    data = _named_data(own[task])
    for path in data:
        if not path.exists():
            raise Refusal(f"{own[task]}: its data file {path} is missing; make or fetch it first")
    return [own[task], *data]


def task_inputs(study: Study) -> list[str]:
    """Return the data files and folders, there or not yet, that the study's benchmarks read."""
    own = own_tasks(study.tasks_dir)
    named = [path for b in study.benchmarks if b.task in own for path in _named_data(own[b.task])]
    return sorted({str(p) for p in named} | ({study.task_data} if study.task_data else set()))


def hub_tasks(study: Study) -> list[str]:
    """Return the benchmarks whose data come from the hub: not from local files, nor from `task_data`.

    Raises:
        Refusal: the folder `task_data` is missing.
    """
    if study.task_data and not Path(study.task_data).is_dir():
        raise Refusal(
            f"task_data: no folder {study.task_data}; check the path, or make it: "
            f"snakemake --config study=STUDY.yaml -- {study.task_data}"
        )
    own = own_tasks(study.tasks_dir)
    tasks = dict.fromkeys(benchmark.task for benchmark in study.benchmarks)
    return [
        task
        for task in tasks
        if not (_named_data(own[task]) if task in own else data_folders(study.task_data, task))
    ]


def source_of(study: Study, task: str) -> str | None:
    """Return the hub data set that a benchmark (or the first of a group that names one) reads."""
    path = own_tasks(study.tasks_dir).get(task) or stock_tasks()[task]
    beside = [other for other in stock_tasks().values() if other.parent == path.parent]
    named = (definition(one).get("dataset_path") for one in (path, *beside))
    return next((str(name) for name in named if name), None)


def _named_data(definition: Path) -> list[Path]:
    """Return the local files that a task YAML names under dataset_kwargs.data_files."""
    named = (_read(definition).get("dataset_kwargs") or {}).get("data_files") or {}
    lists = named.values() if isinstance(named, dict) else [named]
    return [Path(p) for one in lists for p in (one if isinstance(one, list) else [one])]


def data_files(study: Study, task: str) -> list[Path]:
    """Return the files below `task_data` that replace a stock task's (or group's) data."""
    folders = data_folders(study.task_data, task)
    return [file for folder in folders.values() for file in sorted(folder.glob("*.jsonl"))]


def own_tasks(tasks_dir: str | None) -> dict[str, Path]:
    """Return the task YAMLs of a folder by the name of their task."""
    if tasks_dir is None:
        return {}
    if not Path(tasks_dir).is_dir():
        raise Refusal(f"tasks_dir: {tasks_dir} is not a folder; check the path in the study")
    found = {}
    for path in sorted(Path(tasks_dir).rglob("*.yaml")):
        task = _read(path).get("task")
        if isinstance(task, str):
            found[task] = path
    return found


def include_paths(
    tasks: list[str], tasks_dir: str | None, task_data: str | None, scratch: Path
) -> list[Path]:
    """Return the folders that lm-eval must index to know these tasks.

    Args:
        tasks: task or group names.
        tasks_dir: folder of own task YAMLs.
        task_data: folder <task>/<split>.jsonl whose files replace stock tasks' data.
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
        folders = data_folders(task_data, task)
        for leaf, folder in folders.items():
            write_replacement(leaf, folder, scratch)
        if folders and task not in folders:
            write_groups(task, scratch)
            found.append(stock_tasks()[task].parent)  # members without local data
        elif not folders:
            found.append(stock_tasks()[task].parent)
    return [*found, scratch]


def data_folders(task_data: str | None, task: str) -> dict[str, Path]:
    """Return the folders below `task_data` that replace the data of a task or of a group's members."""
    if task_data is None or task not in stock_tasks():
        return {}
    if Path(task_data, task).is_dir():
        return {task: Path(task_data, task)}
    beside = stock_tasks()[task].parent
    members = [name for name, path in stock_tasks().items() if path.parent == beside]
    folders = {name: Path(task_data, name) for name in sorted(members)}
    return {name: folder for name, folder in folders.items() if folder.is_dir()}


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
    stock = definition(stock_tasks()[task])
    content |= {key: None for key in _SPLITS if stock.get(key) not in {*splits, None}}
    _write(scratch / f"{task}.yaml", content)


def write_groups(task: str, scratch: Path) -> None:
    """Write the YAMLs of a stock group and of the groups beside it, which name its members."""
    beside = stock_tasks()[task].parent
    for path in sorted(beside.glob("*.yaml")):
        group = _read(path).get("group")
        if isinstance(group, str):
            _write(scratch / f"{group}.yaml", {"include": str(path), "group": group})


def definition(path: Path) -> dict[str, Any]:
    """Return a stock YAML's keys with those of the files it includes."""
    content = _read(path)
    if "include" in content:
        return definition(path.parent / content["include"]) | content
    return content


def _read(path: Path) -> dict[str, Any]:
    content = yaml.load(path.read_text(encoding="utf-8"), Loader=_AnyTag)
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


class _AnyTag(yaml.SafeLoader):
    """Reads task YAMLs without acting on lm-eval's `!function` tags."""


_AnyTag.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")
