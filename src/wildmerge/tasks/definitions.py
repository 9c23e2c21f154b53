"""Task definitions as lm-eval reads them: YAML files, what they include, functions of modules beside.

Read without lm-eval, whose import takes seconds. Functions are named here and not imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from wildmerge.errors import Refusal

Config = dict[str, Any]

_Base: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_GROUP_KEYS = {"group", "group_alias", "task", "aggregate_metric_list", "metadata"}
"""Keys of a group's definition that are not settings of its members."""
_UNREAD = {"__pycache__", ".ipynb_checkpoints"}


@dataclass(frozen=True)
class Function:
    """What `!function module.name` stands for; the module is looked for in `folder` first."""

    folder: Path
    name: str


@dataclass(frozen=True)
class Entry:
    """What a name stands for.

    Attributes:
        kind: task, class (a task that is a Python class), group or tag.
        path: the YAML file; None for a tag.
        members: names of a tag's tasks, sorted.
    """

    kind: str
    path: Path | None
    members: tuple[str, ...] = ()


@dataclass
class Members:
    """The tasks of a benchmark with their full definitions, and the groups that hold them, by name."""

    tasks: dict[str, Config] = field(default_factory=dict)
    groups: dict[str, Config] = field(default_factory=dict)


def read_definition(path: Path) -> Config:
    """Return the keys of a task YAML and of the files it includes; its own keys win.

    Raises:
        ValueError: no mapping, or a file that includes itself.
        OSError, yaml.YAMLError: a file cannot be read.
    """
    return _read(path, set())


def index_of(folder: Path) -> dict[str, Entry]:
    """Return what the YAML files below a folder define, by name, by lm-eval's rules.

    The first of two definitions of a name counts; a file that is no definition is passed over.
    """
    found: dict[str, Entry] = {}
    tags: dict[str, set[str]] = {}
    paths = (p for p in folder.glob("**/*.yaml") if _UNREAD.isdisjoint(p.parts))
    for path in sorted(paths, key=lambda p: p.as_posix()):
        try:
            content = read_definition(path)
        except (ValueError, TypeError, OSError, yaml.YAMLError):
            continue
        kind = next((kind for kind in ("class", "group", "task") if kind in content), "")
        name = content.get("group" if kind == "group" else "task")
        if not kind or not isinstance(name, str) or name in found:
            continue
        found[name] = Entry(kind, path)
        named = content.get("tag") if kind != "group" else None
        for tag in [named] if isinstance(named, str) else named or ():
            found.setdefault(tag, Entry("tag", None))
            tags.setdefault(tag, set()).add(name)
    filled = {tag: Entry("tag", None, tuple(sorted(names))) for tag, names in tags.items()}
    return {name: filled[name] if entry.kind == "tag" else entry for name, entry in found.items()}


def members_of(index: Mapping[str, Entry], name: str) -> Members:
    """Return the tasks that a benchmark stands for, as lm-eval's groups and tags build them.

    Raises:
        Refusal: a definition cannot be read, or a group defines a task inside itself.
    """
    found = Members()
    _add(found, index, name, {})
    return found


def _read(path: Path, seen: set[Path]) -> Config:
    path = path.expanduser().resolve()
    if path in seen:
        raise ValueError(f"{path} is included twice")
    seen.add(path)
    with path.open("rb") as stream:
        loader = _Loader(stream, path.parent)
        try:
            own = loader.get_single_data()
        finally:
            loader.dispose()
    if not isinstance(own, dict):
        raise ValueError(f"{path}: no keys and values")
    includes = own.pop("include", [])
    content: Config = {}
    for include in includes if isinstance(includes, list) else [includes]:
        content |= _read(path.parent / include, seen)
        content.pop("task_list", None)
    return content | own


class _Loader(_Base):  # type: ignore[misc]
    """Reads `!function` as a name; other tags are errors, as in lm-eval."""

    def __init__(self, stream: Any, folder: Path) -> None:
        super().__init__(stream)
        self.folder = folder


_Loader.add_constructor(
    "!function",
    lambda loader, node: Function(loader.folder, str(loader.construct_scalar(node))),
)


def _add(found: Members, index: Mapping[str, Entry], name: str, overrides: Config) -> None:
    """Add what a name of the index stands for; `overrides` are settings of the groups above it."""
    entry = index[name]
    if entry.kind == "tag":
        for member in entry.members:
            _add(found, index, member, overrides)
        return
    assert entry.path is not None
    try:
        content = read_definition(entry.path)
    except (ValueError, OSError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise Refusal(f"{entry.path}: cannot be read as a task ({reason}); mend it") from None
    if entry.kind == "group":
        _add_group(found, index, name, content, overrides)
        return
    content |= overrides
    task = {k: v for k, v in content.items() if k not in {"tag", "group", "task_list"}}
    called = str(task["task"])  # a group above may call all of its members the same
    if found.tasks.setdefault(called, task) != task:
        raise Refusal(
            f"benchmark {called}: lm-eval keeps one of several tasks that a group calls so; name the "
            "tasks one by one"
        )


def _add_group(
    found: Members, index: Mapping[str, Entry], name: str, content: Config, overrides: Config
) -> None:
    found.groups[name] = {key: content.get(key) for key in ("task", "aggregate_metric_list")}
    shared = {k: v for k, v in content.items() if k not in _GROUP_KEYS} | overrides
    members = content.get("task")
    for item in members if isinstance(members, list) else ():
        settings: Config = item if isinstance(item, dict) else {"task": item}
        if "group" in settings:
            rest = {key: value for key, value in settings.items() if key != "group"}
            if settings["group"] in index:
                _add(found, index, settings["group"], shared | rest)
            else:
                _add_group(found, index, f"{name}::{settings['group']}", settings, shared)
        elif settings.get("task") in index:
            given = item if isinstance(item, dict) else {}
            _add(found, index, settings["task"], shared | given)
        else:
            raise Refusal(
                f"group {name}: its member {settings.get('task')!r} is no task of its own; name its "
                "tasks one by one, or write a YAML file for each"
            )
