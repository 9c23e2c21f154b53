"""Files of hub checkpoints, downloaded into the hub's own cache (HF_HUB_CACHE) and checked there.

The download, the cache's layout and its locks are huggingface_hub's: other programs find what is fetched
here, and what they fetched is not fetched again. It compares sizes; here every file's digest is checked.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wildmerge.errors import Refusal
from wildmerge.hub.references import Entry, blob_path, size_of, snapshot
from wildmerge.hub.retries import token, with_retries
from wildmerge.storage.heartbeat import silent
from wildmerge.storage.locks import locked

STREAMS = 8
"""Files that are downloaded, and repositories that are looked up, at once."""

Advance = Callable[[int], None]

_CHUNK = 1 << 20
_SILENCE = 600.0  # seconds without a byte, after which a download is dead
_WORTH_A_LINE = 10_000_000
"""Bytes of a file whose arrival a log mentions."""


def fetch(*entries: Entry) -> None:
    """Download all files of locked hub checkpoints into the cache and check the digest of each.

    What is there already is checked as well, and downloaded anew where it is wrong. Several files come
    at once; a checkpoint that fails does not keep the others from coming.

    One process downloads at a time, for all that share the cache: each uses the line and sees the disk
    that is really free.

    Raises:
        Refusal: names every checkpoint that is not whole now; run again, whole files stay.
    """
    if not _missing(entries):  # in a cache that is read only, perhaps
        _fetch(entries)
        return
    with _alone():
        _remove_leftovers({entry["repo"] for entry in entries})
        _require_space(_missing(entries))
        _fetch(entries)


def _fetch(entries: Sequence[Entry]) -> None:
    failures: dict[str, Refusal] = {}
    size = sum(file["size"] for entry in entries for file in entry["files"].values())
    stopped = threading.Event()
    with (
        tqdm(total=size, desc="fetching", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(STREAMS) as pool,
    ):
        advance = _counter(bar, stopped)
        tasks = [
            pool.submit(_attempt, entry, name, failures, advance)
            for entry in entries
            for name in entry["files"]
        ]
        try:
            for task in tasks:
                if (line := task.result()) and bar.disable:
                    print(line, file=sys.stderr, flush=True)
        except BaseException:  # an interrupt, a full disk: leave at once
            _stop(pool, stopped)
            raise
    if failures:
        raise Refusal("; ".join(str(refusal) for refusal in failures.values()))


def download(
    repo: str,
    commit: str,
    name: str,
    *,
    size: int,
    digest: str,
    advance: Advance = lambda count: None,
) -> Path:
    """Return where a file of a commit lies, with the right digest; download it if it is not there.

    Args:
        repo: org/name.
        commit: all 40 digits of it.
        name: of the file.
        size: in bytes.
        digest: see `has_digest`.
        advance: called with the number of bytes that have arrived since the last call.

    Raises:
        Refusal: the hub fails for good, or sent other bytes, which are removed.
    """
    for known in (snapshot(repo, commit) / name, blob_path(repo, digest)):
        if known.exists() and not has_digest(known, digest):  # another program's, or a bad disk's
            known.resolve().unlink(missing_ok=True)
    arrived = with_retries(lambda: _download(repo, commit, name, advance), repo)
    path = snapshot(repo, commit) / name
    if arrived and not has_digest(path, digest):
        path.resolve().unlink()
        raise Refusal(
            f"{repo}: a file of it ({name}) arrived with other bytes than locked and was removed; run "
            "the same command again"
        )
    if arrived:
        _flush(path)
    advance(size - arrived)
    return path


def has_digest(path: Path, digest: str) -> bool:
    """Return whether a file has a digest: 64 hex digits of SHA-256, or 40 as git names its content."""
    found = hashlib.sha256()
    if len(digest) == 40:
        found = hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest() == digest


def _attempt(entry: Entry, name: str, failures: dict[str, Refusal], advance: Advance) -> str:
    """Download one file of an entry that has not failed; return what a log says of it."""
    if entry["identity"] in failures:
        return ""
    repo, file = entry["repo"], entry["files"][name]
    size, digest = file["size"], file["sha256"]
    try:
        download(repo, entry["commit"], name, size=size, digest=digest, advance=advance)
    except Refusal as refusal:
        failures.setdefault(entry["identity"], refusal)
        return ""
    return f"{repo}: {name}, {size / 1e6:,.0f} MB" if size > _WORTH_A_LINE else ""


def _download(repo: str, commit: str, name: str, advance: Advance) -> int:
    """Have a file in the cache, whatever its bytes; return how many of them came for it."""
    from huggingface_hub import constants, hf_hub_download

    arrived = 0

    def count(more: int) -> None:
        nonlocal arrived
        arrived += more
        advance(more)

    try:
        hf_hub_download(
            repo,
            name,
            revision=commit,
            cache_dir=constants.HF_HUB_CACHE,
            endpoint=constants.ENDPOINT,
            token=token(),
            library_name="wildmerge",
            tqdm_class=_bar_of(count),
        )
    except Exception:
        advance(-arrived)  # the next try begins anew
        raise
    return arrived


def _bar_of(count: Advance) -> type:
    """Return what huggingface_hub takes for the class of a progress bar; it counts what arrives."""

    class Bar:
        def __init__(self, **_: object) -> None:
            pass

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, number: float | None) -> None:
            count(int(number or 0))

        def ignore(self, *_: object, **__: object) -> None:
            pass

        close = set_postfix_str = set_transfer_postfix_str = ignore
        update_transfer = ignore  # bytes on the wire, which may be compressed

    return Bar


def _counter(bar: Any, stopped: threading.Event) -> Advance:
    """Return what moves a bar from any thread, and ends the downloads once `stopped` is set."""
    guard = threading.Lock()

    def advance(count: int) -> None:
        if stopped.is_set():
            raise Refusal("interrupted")
        with guard:
            bar.update(count)

    return advance


def _stop(pool: ThreadPoolExecutor, stopped: threading.Event) -> None:
    """End all downloads at once; hf_xet's, which run outside Python, as huggingface_hub does it."""
    from huggingface_hub.utils._xet import abort_xet_session

    stopped.set()
    abort_xet_session()  # type: ignore[no-untyped-call]
    pool.shutdown(cancel_futures=True)


def _flush(path: Path) -> None:
    """Have a file's bytes on the disk, before anything says that it is there."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other process downloads into the cache."""
    lock = _cache() / ".locks" / "wildmerge"
    with locked(lock, wait=False) as free:
        if free:
            yield
            return
    print("another download into the same cache is under way; waiting", file=sys.stderr, flush=True)
    with locked(lock):
        yield


def _remove_leftovers(repos: Iterable[str]) -> None:
    """Remove what killed processes left of files under way; huggingface_hub never takes it up again."""
    from filelock import Timeout
    from huggingface_hub.utils import WeakFileLock

    for repo in repos:
        blobs = blob_path(repo, "")
        for partial in blobs.glob("*.incomplete"):
            lock = _cache() / ".locks" / blobs.parent.name / f"{partial.name.split('.')[0]}.lock"
            with suppress(Timeout, OSError), WeakFileLock(lock, timeout=0.01):
                if silent(partial, _SILENCE):  # its lock may not reach the machine that writes it
                    partial.unlink()


def _missing(entries: Sequence[Entry]) -> int:
    """Return how many bytes of some checkpoints are not in the cache."""
    return sum(
        file["size"]
        for entry in entries
        for name, file in entry["files"].items()
        if size_of(snapshot(entry["repo"], entry["commit"]) / name) != file["size"]
    )


def _require_space(missing: int) -> None:
    """Refuse when what is missing does not fit on the disk of the cache."""
    cache = _cache()
    free = shutil.disk_usage(cache).free
    if missing > free:
        raise Refusal(
            f"{cache}: {missing / 1e9:.0f} GB are to be fetched and {free / 1e9:.0f} GB are free; free "
            "some or set HF_HUB_CACHE to a folder on another disk"
        )


def _cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)
