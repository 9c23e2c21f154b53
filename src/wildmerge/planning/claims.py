"""Whose results a folder holds: two studies of one name would replace each other's tables."""

from __future__ import annotations

import os
from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json, write_json
from wildmerge.validation import read_yaml


def claim_results(name: str, study_file: str | Path, results: Path, *, write: bool = True) -> None:
    """Make results/<name> the folder of a study file, or refuse where it is another's.

    A study file that was moved or renamed keeps its results: only one that is still there, under the
    same name, is another study.

    Args:
        name: of the study, or of a part of it.
        study_file: the file that it is loaded from.
        results: root of all results.
        write: write the study file's place there, where none is written yet.

    Raises:
        Refusal: the folder belongs to another study file.
    """
    mark = results / name / "study.json"
    if mark.exists():
        other = str(read_json(mark, missing="", broken="delete it").get("file", ""))
        if os.path.realpath(other) == os.path.realpath(study_file):
            return
        if _is_named(other, name):
            raise Refusal(
                f"{study_file}: name: {results / name} exists and is of another study of the same name, "
                f"{other}; give one of them another name"
            )
    if write:
        write_json(mark, {"file": _portable(study_file)})


def _is_named(study_file: str, name: str) -> bool:
    """Return whether a study file is there and states a study that is so named, or a part of it."""
    try:
        content = read_yaml(study_file)
    except Refusal:
        return False
    whole = content.get("name") if isinstance(content, dict) else None
    return isinstance(whole, str) and (name == whole or name.startswith(f"{whole}-"))


def _portable(path: str | Path) -> str:
    """Return a path as seen from here; so a folder can move with its study and its results."""
    relative = os.path.relpath(path)
    return os.path.abspath(path) if relative.startswith("..") else relative
