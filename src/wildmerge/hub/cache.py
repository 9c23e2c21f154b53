"""Files of hub checkpoints in the hub's own cache (HF_HUB_CACHE), which holds the only copy of them.

The layout is huggingface_hub's: blobs/<digest>, and snapshots/<commit>/<name> pointing there. Other
programs find what is fetched here, and what they fetched is not fetched again.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tqdm import tqdm

from wildmerge.errors import Refusal

STREAMS = 8
"""Files that are brought, and repositories that are looked up, at once."""

_WORTH_A_LINE = 10_000_000
"""Bytes of a file that a log tells of."""

Files = Mapping[str, Mapping[str, Any]]


def snapshot(repo: str, commit: str) -> Path:
    """Return the folder in which a commit's files lie, whether they are there or not."""
    return _folder(repo) / "snapshots" / commit


def is_whole(repo: str, commit: str, files: Files) -> bool:
    """Tell by their sizes whether all files of a commit are in the cache (digests: see `bring`)."""
    folder = snapshot(repo, commit)
    return all(_size(folder / name) == file["size"] for name, file in files.items())


def fetch(*entries: Mapping[str, Any]) -> None:
    """Bring all files of locked hub checkpoints into the cache and check the digest of each.

    What is there already is checked as well, and brought anew where it is wrong. Several files come at
    once; a checkpoint that fails does not keep the others from coming.

    Raises:
        Refusal: names every checkpoint that is not whole now; run again, it goes on where it was.
    """
    _require_space(entries)
    failures: dict[str, Refusal] = {}
    stopped, guard = threading.Event(), threading.Lock()
    size = sum(file["size"] for entry in entries for file in entry["files"].values())

    def advance(count: int) -> None:
        if stopped.is_set():
            raise Refusal("interrupted")
        with guard:
            bar.update(count)

    def attempt(entry: Mapping[str, Any], name: str) -> None:
        repo, commit, file = entry["repo"], entry["commit"], entry["files"][name]
        if entry["identity"] not in failures:
            try:
                bring(repo, commit, name, size=file["size"], digest=file["sha256"], advance=advance)
            except Refusal as refusal:
                failures.setdefault(entry["identity"], refusal)
                return
            if bar.disable and file["size"] > _WORTH_A_LINE:
                print(f"{repo}: {name}, {file['size'] / 1e6:,.0f} MB", file=sys.stderr, flush=True)

    with (
        tqdm(total=size, desc="fetching", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        tasks = [pool.submit(attempt, entry, name) for entry in entries for name in entry["files"]]
        try:
            for task in tasks:
                task.result()
        except BaseException:  # an interrupt, a full disk: leave at once
            stopped.set()
            pool.shutdown(cancel_futures=True)
            raise
    if failures:
        raise Refusal("; ".join(str(refusal) for refusal in failures.values()))


def bring(
    repo: str,
    commit: str,
    name: str,
    *,
    size: int,
    digest: str,
    advance: Callable[[int], None] = lambda count: None,
) -> Path:
    """Return where a file of a commit lies, with the right digest; bring it if it is not there.

    Args:
        repo: org/name.
        commit: all 40 digits of it.
        name: of the file.
        size: in bytes.
        digest: SHA-256, or git's own digest of its content.
        advance: called with the number of bytes that have arrived since the last call.

    Raises:
        Refusal: see `transfer.download`.
    """
    from huggingface_hub import constants

    from wildmerge.hub.transfer import download, has_digest

    pointer = snapshot(repo, commit) / name
    blob = _folder(repo) / "blobs" / digest
    for path in (pointer, blob):  # from an earlier fetch, or another program's
        if path.exists():
            if has_digest(path, digest):
                advance(size)
                break
            path.resolve().unlink(missing_ok=True)
    else:
        address = f"{constants.ENDPOINT}/{repo}/resolve/{commit}/{quote(name)}"
        lock = Path(constants.HF_HUB_CACHE, ".locks", _folder(repo).name, f"{digest}.lock")
        download(address, blob, lock, size=size, digest=digest, repo=repo, advance=advance)
    if not pointer.exists():
        pointer.parent.mkdir(parents=True, exist_ok=True)
        temporary = pointer.with_name(f".{name}.{os.getpid()}.{threading.get_ident()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("../../blobs", digest))
        temporary.replace(pointer)
    return pointer


def remember(repo: str, revision: str, commit: str) -> None:
    """Note which commit a branch or tag means, for `commit_of`."""
    from wildmerge.storage.files import write_atomically

    if revision != commit:
        write_atomically(_folder(repo) / "refs" / revision, commit)


def commit_of(repo: str, revision: str) -> str:
    """Return the commit that a branch, tag or commit meant when it was fetched last; without network."""
    note = _folder(repo) / "refs" / revision
    return note.read_text(encoding="utf-8").strip() if note.is_file() else revision


def _folder(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE, f"models--{repo.replace('/', '--')}")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _require_space(entries: tuple[Mapping[str, Any], ...]) -> None:
    """Refuse when what is missing does not fit on the disk of the cache."""
    from huggingface_hub import constants

    missing = sum(
        file["size"]
        for entry in entries
        for name, file in entry["files"].items()
        if _size(snapshot(entry["repo"], entry["commit"]) / name) != file["size"]
    )
    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if missing > free:
        raise Refusal(
            f"{cache}: {missing / 1e9:.0f} GB are to be fetched and {free / 1e9:.0f} GB are free; free "
            "some or set HF_HUB_CACHE to a folder on another disk"
        )
