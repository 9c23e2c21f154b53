"""Names of benchmarks: tasks, groups and tags of the study's own folder and of the installed lm-eval.

Reading lm-eval's 14,000 task files takes seconds, so what they define is kept in a small file of the
user's cache, made anew when lm-eval or a folder of its tasks changes.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import json
import os
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.storage.files import write_json
from wildmerge.study.file import Study
from wildmerge.tasks.definitions import Entry, index_of


def tasks_index(tasks_dir: str | None) -> dict[str, Entry]:
    """Return all known names; the study's own stand before lm-eval's.

    Raises:
        Refusal: the folder is missing, or lm-eval is not installed.
    """
    return stock_tasks() | own_tasks(tasks_dir)


def own_tasks(tasks_dir: str | None) -> dict[str, Entry]:
    """Return the tasks, groups and tags that a folder of YAML files defines."""
    if tasks_dir is None:
        return {}
    if not Path(tasks_dir).is_dir():
        raise Refusal(f"tasks_dir: {tasks_dir} is not a folder; check the path in the study")
    return index_of(Path(tasks_dir))


@cache
def stock_tasks() -> dict[str, Entry]:
    """Return the tasks, groups and tags of the installed lm-eval."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or not spec.submodule_search_locations:
        raise Refusal("lm-eval is not installed; install wildmerge[eval]")
    folder = Path(spec.submodule_search_locations[0], "tasks")
    file = _cache_file(folder)
    stored = _read(file, folder)
    if stored is None:
        stored = index_of(folder)
        _write(file, folder, stored)
    return stored


def check_benchmarks(study: Study, where: str) -> None:
    """Refuse a study with a benchmark that neither its tasks_dir nor lm-eval defines."""
    own = own_tasks(study.tasks_dir)
    for position, benchmark in enumerate(study.benchmarks):
        if benchmark.task not in own and benchmark.task not in stock_tasks():
            problem = unknown_task(benchmark.task, study.tasks_dir)
            raise Refusal(f"{where}: benchmarks[{position}]: {problem}")


def unknown_task(name: str, tasks_dir: str | None) -> str:
    """Say that no such benchmark is known, with the nearest few names."""
    start = f"unknown benchmark '{name}'"
    for path in sorted(Path(tasks_dir).rglob("*.yml")) if tasks_dir else ():
        if path.stem == name:
            return f"{start}; lm-eval reads no .yml files: rename {path} to {path.stem}.yaml"
    own = own_tasks(tasks_dir)
    near = difflib.get_close_matches(name, own, 1) or difflib.get_close_matches(name, stock_tasks())
    if near:
        return f"{start}; did you mean {' or '.join(map(repr, near))}?"
    where = f"neither {tasks_dir} nor lm-eval defines it" if tasks_dir else "lm-eval has none such"
    return f"{start}; {where} (its names: `lm-eval ls tasks`)"


def _cache_file(folder: Path) -> Path:
    """Return the file that keeps the index of this lm-eval, as its folders are now."""
    state = hashlib.sha256(f"{metadata.version('lm_eval')} {folder}".encode())
    for place, below, _ in os.walk(folder):
        below.sort()
        if not place.endswith("__pycache__"):
            state.update(f"{place} {os.stat(place).st_mtime_ns}".encode())
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "wildmerge", f"lm_eval-tasks-{state.hexdigest()[:16]}.json")


def _read(file: Path, folder: Path) -> dict[str, Entry] | None:
    """Read a stored index; None if there is none, or a damaged one."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8")).items()
        return {
            name: Entry(kind, Path(folder, path) if path else None, tuple(members))
            for name, (kind, path, members) in rows
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _write(file: Path, folder: Path, index: Mapping[str, Entry]) -> None:
    """Store an index where that is possible; without it the next start takes seconds longer."""
    rows = {
        name: [
            entry.kind,
            str(entry.path.relative_to(folder)) if entry.path else None,
            entry.members,
        ]
        for name, entry in index.items()
    }
    try:
        write_json(file, rows, indent=None)
    except OSError:
        return
