"""Paths in a study file: relative to the working directory, or else to the folder of the study file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

PATHS = ("tasks_dir", "task_data", "methods_dir", "published")
"""Keys of a study that hold paths, beside its checkpoints."""


def with_paths(content: Any, folder: Path) -> Any:
    """Return a study file's content, not checked yet, with paths as seen from the working directory.

    Args:
        content: of the YAML file.
        folder: of that file.
    """
    if not isinstance(content, dict):
        return content
    content = content | {key: from_here(content[key], folder) for key in PATHS if key in content}
    if isinstance(bases := content.get("bases"), dict):
        content["bases"] = {name: _base(base, folder) for name, base in bases.items()}
    return content


def from_here(path: Any, folder: Path) -> Any:
    """Return a path that exists below `folder` only as seen from the working directory."""
    if not isinstance(path, str) or Path(path).exists() or not (folder / path).exists():
        return path
    short = os.path.normpath(folder / path)
    # with links on the way, `..` may lead elsewhere
    return (
        short if os.path.realpath(short) == os.path.realpath(folder / path) else str(folder / path)
    )


def _base(base: Any, folder: Path) -> Any:
    if not isinstance(base, dict):
        return base
    base = {
        key: from_here(value, folder) if key == "checkpoint" else value
        for key, value in base.items()
    }
    experts = base.get("experts")
    if isinstance(experts, dict):
        base["experts"] = {name: from_here(path, folder) for name, path in experts.items()}
    elif isinstance(experts, list):
        base["experts"] = [from_here(path, folder) for path in experts]
    return base
