"""What a lock file may say: it can come from someone else, and paths follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from wildmerge.errors import Refusal

_DIGEST = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"(?!.*\.\.)[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_LOCAL = re.compile(r"sha256:[0-9a-f]{16}")


def check_content(where: str, content: dict[str, Any], schema: int) -> None:
    """Refuse what is no lock file, or one whose names or digests are not of the form they must have.

    Args:
        where: the file, for the message.
        content: its content.
        schema: the version of lock files that is read.

    Raises:
        Refusal: names the first thing that is wrong.
    """
    again = "delete it and run `wildmerge lock`"
    if content.get("schema") != schema:
        raise Refusal(
            f"{where}: of another version of wildmerge; run `wildmerge lock` on the study"
        )
    if not all(isinstance(content.get(key), dict) for key in ("checkpoints", "tasks")):
        raise Refusal(f"{where}: not a lock file; {again}")
    for name, entry in content["checkpoints"].items():
        for problem in _problems(entry):
            raise Refusal(f"{where}: {name}: {problem}; {again}")
    for task, entry in content["tasks"].items():
        if not isinstance(entry, dict):
            raise Refusal(f"{where}: {task}: no entry of a benchmark; {again}")


def _problems(entry: Any) -> Iterator[str]:
    """Give what is wrong with a checkpoint's entry."""
    keys = ("files", "config", "tensors")
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), dict) for key in keys):
        yield "no entry of a checkpoint"
        return
    yield from _identity_problems(entry)
    for name, file in entry["files"].items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            yield f"the file name {name!r} leads out of the checkpoint"
        if not isinstance(file, dict) or not _is(_DIGEST, file.get("sha256")):
            yield f"no digest of {name}"
        elif type(file.get("size")) is not int or file["size"] < 0:
            yield f"no size of {name}"
    for name, tensor in entry["tensors"].items():
        if not _is_tensor(tensor):
            yield f"no dtype and shape of {name}"


def _identity_problems(entry: dict[str, Any]) -> Iterator[str]:
    if "repo" not in entry:
        if not _is(_LOCAL, entry.get("identity")):
            yield "its identity is no digest"
    elif not _is(_REPO, entry["repo"]) or not _is(_COMMIT, entry.get("commit")):
        yield "no repository and commit of the hub"
    elif entry.get("identity") != f"{entry['repo']}@{entry['commit']}":
        yield "its identity is not that of its commit"


def _is(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_tensor(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str):  # noqa: PLR2004
        return False
    return isinstance(value[1], list) and all(type(n) is int and n >= 0 for n in value[1])
