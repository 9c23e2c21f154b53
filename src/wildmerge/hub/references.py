"""What a reference to a checkpoint means, and where its files lie; nothing here uses the network.

A reference is a folder or a hub id, `org/name[@revision]`. Files of hub ids lie in the hub's own cache:
blobs/<digest>, and snapshots/<commit>/<name> pointing there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wildmerge.checkpoints.opening import open_weights
from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json, write_atomically

Entry = dict[str, Any]
"""A locked hub checkpoint: repo, commit, files (name -> size and sha256), config, tensors (name ->
[dtype, shape]) and identity, `org/name@commit`."""

_ID = re.compile(r"(?!.*\.\.)([a-z0-9][\w.-]*/[a-z0-9][\w.-]*)(?:@([\w./-]+))?", re.ASCII | re.I)


def is_hub(reference: str, *places: Path) -> bool:
    """Return whether a reference is a hub id and no path.

    It is a path where a folder of its name exists, or one that could hold it: with experts/ here,
    `experts/science` is no organisation's. A revision (`org/name@main`) always makes it a hub id.

    Args:
        reference: folder or hub id.
        places: folders that paths are relative to, beside the working directory.
    """
    if reference.startswith((".", "/", "~", "results/")) or Path(reference).is_dir():
        return False
    holder = reference.partition("/")[0]
    if "@" not in reference and any((place / holder).is_dir() for place in (Path(), *places)):
        return False
    return _ID.fullmatch(reference) is not None


def no_folder(reference: str, *places: Path) -> str:
    """Say that a reference is no folder and no hub id, and what to do.

    Args:
        reference: for which `is_hub` is false and no folder exists.
        places: as given to `is_hub`.
    """
    looked = " or in ".join(str(place.absolute()) for place in (Path(), *places))
    remedy = "check the path"
    if _ID.fullmatch(reference) and "@" not in reference:
        remedy += f", or write {reference}@main for a repository of the hub"
    return f"{reference}: no such folder in {looked}; {remedy}"


def parts(reference: str) -> tuple[str, str]:
    """Split a hub id into repository and revision, `main` when none is given."""
    found = _ID.fullmatch(reference)
    if found is None:
        raise Refusal(f"{reference}: neither a folder nor a hub id (org/name, org/name@revision)")
    return found[1], found[2] or "main"


def folder_of(reference: str, entry: Entry | None = None) -> Path:
    """Return the folder in which a checkpoint's files lie, without any network.

    Args:
        reference: folder or hub id.
        entry: its lock entry; without one the cache's own note says what the revision means.

    Raises:
        Refusal: a hub checkpoint has not been fetched, or not all of it.
    """
    if not ("repo" in entry if entry else is_hub(reference)):
        return Path(reference)
    repo, revision = parts(reference)
    folder = snapshot(repo, entry["commit"] if entry else _commit_of(repo, revision))
    files: Mapping[str, Any] = entry["files"] if entry else {}
    if not folder.is_dir() or any(size_of(folder / n) != f["size"] for n, f in files.items()):
        wanted = entry["identity"] if entry else reference
        raise Refusal(f"{reference}: not fetched; run `wildmerge fetch {wanted}` (needs network)")
    return folder


def is_here(reference: str) -> bool:
    """Return whether a checkpoint is a folder, or a hub checkpoint that was fetched."""
    try:
        folder_of(reference)
    except Refusal:
        return False
    return True


def describe(folder: Path) -> Entry:
    """Return config and tensors of a checkpoint folder, as lock entries have them; no weight is read."""
    opened = open_weights(folder)
    tensors = sorted(opened.tensors.items())
    return {
        "config": opened.config,
        "tensors": {name: [info.dtype, list(info.shape)] for name, info in tensors},
    }


def read_config(path: Path) -> Entry:
    """Read a checkpoint's config."""
    return read_json(path, missing="a checkpoint needs its config.json")


def snapshot(repo: str, commit: str) -> Path:
    """Return the folder in which a commit's files lie, whether they are there or not."""
    return _folder(repo) / "snapshots" / commit


def blob_path(repo: str, digest: str) -> Path:
    """Return where a file's content lies, by the digest that the hub knows it by."""
    return _folder(repo) / "blobs" / digest


def size_of(path: Path) -> int | None:
    """Return a file's size in bytes, None when there is no such file."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def remember(repo: str, revision: str, commit: str) -> None:
    """Write down in the cache which commit a branch or tag means, for `folder_of`."""
    if revision != commit:
        write_atomically(_folder(repo) / "refs" / revision, commit)


def _commit_of(repo: str, revision: str) -> str:
    """Return the commit that a branch, tag or commit meant when it was fetched last."""
    ref = _folder(repo) / "refs" / revision
    return ref.read_text(encoding="utf-8").strip() if ref.is_file() else revision


def _folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")
