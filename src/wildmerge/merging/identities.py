"""What a checkpoint is known by, wherever it lies: `repo@commit`, or a digest of its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wildmerge.checkpoints.files import model_files
from wildmerge.errors import Refusal
from wildmerge.hub import references as hub
from wildmerge.storage.digests import digest_of
from wildmerge.study.recipe import short_hash

Entry = dict[str, Any]
"""Size and sha256 of a file."""


def identity(reference: str, folder: Path) -> str:
    """Return the identity of a checkpoint that is here, the one that a study locks.

    Args:
        reference: what it is called: a folder or a hub id.
        folder: where its files lie.
    """
    if hub.is_hub(reference) and folder.parent.name == "snapshots":
        return f"{hub.parts(reference)[0]}@{folder.name}"  # of a snapshot: its commit
    return identity_of(files_of(str(folder)))


def files_of(name: str) -> dict[str, Entry]:
    """Return size and digest of every file that is read of a folder, as they are now."""
    folder = Path(name)
    if not folder.is_dir():
        raise Refusal(f"{name}: no such checkpoint folder; check the path in the study")
    files = {str(path.relative_to(folder)): path for path in model_files(folder)}
    return {
        name: {"size": path.stat().st_size, "sha256": digest_of(path)}
        for name, path in files.items()
    }


def identity_of(files: Mapping[str, Entry]) -> str:
    """Return the identity of a folder's content: of all the files that are read of it."""
    digests = {file: entry["sha256"] for file, entry in files.items()}
    return f"sha256:{short_hash(digests)}"
