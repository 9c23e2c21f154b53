"""What decides the questions of a benchmark, as digests: its definition, the code it calls, its data.

A definition is every key of a task's YAML and of the files that it includes, with the modules that its
functions are of and what those import from beside them. Where data lie is no part of it; their bytes
are.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.storage.digests import digest_of
from wildmerge.storage.files import sha256_of
from wildmerge.study.file import Study
from wildmerge.study.recipe import short_hash
from wildmerge.tasks.data import HUB, hub_key, local_files, on_local_data, replaced, repositories
from wildmerge.tasks.definitions import Config, Entry, Function, members_of
from wildmerge.tasks.index import tasks_index

LockedTask = dict[str, Any]
"""A benchmark in a lock: `definition`, a digest, and `data`: the SHA-256 of each file by its path, the
commit of each data set of the hub by `hub org/name@revision`."""

_SHOWN = {"task_alias"}
"""Keys that decide no number."""


def lock_task(
    index: Mapping[str, Entry],
    task: str,
    task_data: str | None,
    commit_of: Callable[[str, str], str],
) -> LockedTask:
    """Return what decides the questions of a benchmark.

    Args:
        index: the names that are known.
        task: one of them.
        task_data: folder <task>/<split>.jsonl that replaces stock tasks' data.
        commit_of: gives the commit of a data set of the hub at a revision.

    Raises:
        Refusal: a definition cannot be read, or data are missing or known to the task's code only.
    """
    members = members_of(index, task)
    data: dict[str, str] = {}
    definition: list[Any] = [_plain(members.groups)]
    for written in members.tasks.values():
        config = on_local_data(written, task_data)
        files = _digests(config)
        data |= files
        data |= {
            hub_key(*source): _commit(source, task, commit_of) for source in repositories(config)
        }
        definition.append(_plain(_without_places(config, files)))
    return {"definition": short_hash(definition), "data": dict(sorted(data.items()))}


def _commit(source: tuple[str, str], task: str, commit_of: Callable[[str, str], str]) -> str:
    """Return the commit of a data set and its revision, or say whose data cannot be had."""
    try:
        return commit_of(*source)
    except Refusal as refusal:
        raise Refusal(
            f"benchmark {task}: {refusal}; or put its data into the folder that `task_data` names, as "
            f"{task}/<split>.jsonl"
        ) from None


def data_sets(locked: LockedTask) -> dict[str, str]:
    """Return the data sets of the hub that a locked benchmark reads, with their commits."""
    return {key: commit for key, commit in locked["data"].items() if key.startswith(HUB)}


def task_inputs(study: Study) -> list[str]:
    """Return the data files and folders, there or not yet, that a study's benchmarks read.

    Raises:
        Refusal: a definition cannot be read.
    """
    index = tasks_index(study.tasks_dir)
    tasks = [
        config for b in study.benchmarks for config in members_of(index, b.task).tasks.values()
    ]
    files = {str(file) for config in tasks for file in local_files(config)}
    return sorted(files | ({study.task_data} if study.task_data else set()))


def _digests(config: Config) -> dict[str, str]:
    """Return the SHA-256 of a task's local files by path."""
    files = local_files(config)
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise Refusal(
            f"benchmark {config['task']}: its data file {missing[0]} is missing; make or fetch it first"
        )
    if not config.get("dataset_path"):
        raise Refusal(
            f"benchmark {config['task']}: its data come from its own code and cannot be locked; put "
            f"them into the folder that task_data names, as {config['task']}/<split>.jsonl"
        )
    return {str(file): digest_of(file) for file in files}


def _without_places(config: Config, files: Mapping[str, str]) -> list[list[Any]]:
    """Return a definition's keys and values in one order, with digests instead of paths of data.

    The order inside a value is kept: that of choices decides scores.
    """
    if files:
        kwargs = dict(config.get("dataset_kwargs") or {})
        kwargs.pop("data_dir", None)
        if "data_files" in kwargs:
            kwargs["data_files"] = replaced(
                kwargs["data_files"], lambda text: files.get(str(Path(text)), Path(text).name)
            )
        else:  # a folder
            config = config | {"dataset_path": sorted(files.values())}
        config = config | {"dataset_kwargs": kwargs}
    return [[key, config[key]] for key in sorted(config) if key not in _SHOWN]


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; a function is its name and the digest of its code."""
    if isinstance(value, Function):
        module = value.name.rpartition(".")[0].replace(".", "/")
        return {"function": value.name, "code": _code(value.folder / f"{module}.py")}
    if isinstance(value, dict):
        return [[str(key), _plain(inner)] for key, inner in value.items()]
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, str | int | bool | None) else repr(value)


def _code(module: Path) -> str:
    """Return the digest of a module, and of the files beside it that it imports or names."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        if file not in found and file.is_file():
            found.add(file)
            waiting += _needed(file) if file.suffix == ".py" else ()
    below = module.parent
    names = {
        file: str(file.relative_to(below)) if below in file.parents else file.name for file in found
    }
    return short_hash(sorted([name, sha256_of(file)] for file, name in names.items()))


def _needed(file: Path) -> Iterator[Path]:
    """Give the files that a module may import from beside it, or read by a name that stands in it."""
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _modules(file.parent, alias.name)
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[max(node.level - 1, 0)]
            for alias in node.names:
                yield from _modules(folder, f"{node.module or ''}.{alias.name}".lstrip("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if "." in node.value and len(node.value) < 100:
                yield file.parent / node.value


def _modules(folder: Path, name: str) -> Iterator[Path]:
    """Give the files that `import name` may mean in a folder: the module and the packages above it."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:depth])
        yield place.with_suffix(".py")
        yield place / "__init__.py"
