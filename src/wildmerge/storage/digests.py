"""Digests of files that are computed once: a file is read again when anything shows that it may differ.

The system renews a file's change time (ctime) with every write and every change of its other times, and
no program can set it back. A digest is remembered under name, inode, size and both times, so that bytes
changed at the same size and modification time are noticed.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from wildmerge.storage.files import sha256_of, write_atomically

_SETTLED = 2.0  # seconds; a file changed within them could change again at the same recorded time


def digest_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file as it is now, as 64 hex digits."""
    before = _state(path)
    remembered = _folder() / _key(path, before)
    with suppress(OSError):
        digest = remembered.read_text()
        if len(digest) == 64:
            return digest
    digest = sha256_of(path)
    if _state(path) == before and time.time() - max(before[2:]) / 1e9 > _SETTLED:
        with suppress(OSError):  # a home that cannot be written to
            write_atomically(remembered, digest)
    return digest


def _state(path: str | os.PathLike[str]) -> tuple[int, int, int, int]:
    state = os.stat(path)
    return state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns


def _key(path: str | os.PathLike[str], state: tuple[int, ...]) -> str:
    from hashlib import sha256

    return sha256(repr((os.path.realpath(path), state)).encode()).hexdigest()


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wildmerge" / "digests"
