"""Where a task's data come from: files named by its definition, the study's `task_data`, or the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from glob import glob
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.hub.data_sets import data_file
from wildmerge.tasks.definitions import Config

HUB = "hub "
"""How a lock's names of data sets of the hub begin; others are paths."""

_READERS = {"arrow", "csv", "json", "pandas", "parquet", "text", "xml"}
"""Values of dataset_path that are a file format, not a data set."""
_ON_HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?/(.+)")
_SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


def on_local_data(config: Config, task_data: str | None) -> Config:
    """Return a definition that reads `<task_data>/<task>/<split>.jsonl`, where that folder is there.

    A task that names local files itself keeps them.

    Raises:
        Refusal: there is no folder `task_data`, or the task's holds no file.
    """
    if task_data is None or local_files(config):
        return config
    if not Path(task_data).is_dir():
        raise Refusal(
            f"task_data: no folder {task_data}; check the path, or make it: "
            f"snakemake --config study=STUDY.yaml -- {task_data}"
        )
    folder = Path(task_data, str(config["task"]))
    if not folder.is_dir():
        return config
    splits = {path.stem: str(path) for path in sorted(folder.glob("*.jsonl"))}
    if not splits:
        raise Refusal(
            f"{folder}: no <split>.jsonl in it; fetch the data of '{config['task']}' again"
        )
    changes: Config = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": splits},
        "custom_dataset": None,
    }
    absent = {key: None for key in _SPLITS if config.get(key) not in {*splits, None}}
    return config | changes | absent


def local_files(config: Config) -> list[Path]:
    """Return the files, there or not yet, that a definition reads from this machine."""
    path = config.get("dataset_path")
    kwargs = config.get("dataset_kwargs") or {}
    if path in _READERS:
        named = [text for text in _texts(kwargs.get("data_files")) if "://" not in text]
        files = [file for text in named for file in _matching(text)]
        return files + (_below(Path(kwargs["data_dir"])) if kwargs.get("data_dir") else [])
    return _below(Path(path)) if path and Path(path).is_dir() else []


def repositories(config: Config) -> list[tuple[str, str]]:
    """Return the data sets of the hub that a definition reads, each with its revision.

    Raises:
        Refusal: a file is at an address of the net, whose content nothing can lock.
    """
    path = config.get("dataset_path")
    kwargs = config.get("dataset_kwargs") or {}
    if not path or local_files(config):
        return []
    if path not in _READERS:
        return [(path, kwargs.get("revision") or "main")]
    found = []
    for text in _texts(kwargs.get("data_files")):
        match = _ON_HUB.fullmatch(text)
        if match is None:
            raise Refusal(
                f"benchmark {config['task']}: its data at {text.partition('?')[0]} cannot be locked; "
                "download them, and name the file in the task's YAML"
            )
        found.append((match[1], match[2] or "main"))
    return found


def hub_key(name: str, revision: str) -> str:
    """Return what a lock calls a data set of the hub."""
    return f"{HUB}{name}@{revision}"


def at_commits(config: Config, commits: Mapping[str, str], cache: Path) -> Config:
    """Return a definition that reads its data sets of the hub at the given commits.

    Args:
        config: the definition.
        commits: by `hub_key`, as a lock has them.
        cache: holds prepared data, a folder for each commit: without network `datasets` takes
            whichever commit it finds in a folder.

    Raises:
        Refusal: a single file of a data set cannot be had.
    """
    sources = repositories(config)
    if not sources:
        return config
    kwargs = dict(config.get("dataset_kwargs") or {})
    if config["dataset_path"] in _READERS:
        kwargs["data_files"] = replaced(kwargs["data_files"], lambda text: _fetched(text, commits))
    else:
        commit = commits[hub_key(*sources[0])]
        kwargs |= {"revision": commit, "cache_dir": str(cache / commit)}
    return config | {"dataset_kwargs": kwargs}


def replaced(value: Any, change: Callable[[str], Any]) -> Any:
    """Return `data_files` with every text in it changed."""
    if isinstance(value, dict):
        return {key: replaced(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, change) for inner in value]
    return change(str(value))


def _fetched(text: str, commits: Mapping[str, str]) -> str:
    """Return where a file `hf://datasets/org/name/file` lies, downloaded if there is network."""
    match = _ON_HUB.fullmatch(text)
    assert match is not None  # repositories() refuses others
    commit = commits[hub_key(match[1], match[2] or "main")]
    return str(data_file(match[1], commit, match[3]))


def _texts(value: Any) -> list[str]:
    """Return the paths and addresses in `data_files`."""
    found: list[str] = []
    replaced(value if value is not None else [], found.append)
    return found


def _matching(text: str) -> list[Path]:
    """Return the files that a path or a pattern names."""
    return [Path(path) for path in sorted(glob(text, recursive=True))] or [Path(text)]


def _below(folder: Path) -> list[Path]:
    """Return the files below a folder that is a data set."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in files if not path.name.startswith(".")]
