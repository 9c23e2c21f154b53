"""Files that are either whole or absent.

Everything durable is written to a temporary sibling, flushed to the disk and then renamed, so that a
kill at any moment leaves the old file, the new file or nothing under the final name.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from wildmerge.errors import Refusal
from wildmerge.storage.heartbeat import HERE, beating, silent

_LOCK = ".lock"
_SILENCE = 600.0  # seconds; many times heartbeat.BEAT


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> Path:
    """Write `content` (text as UTF-8) to `path` so that no reader ever sees a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(partial, 0o666 & ~current_umask())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path


def write_json(path: str | os.PathLike[str], value: Any, *, indent: int | None = 1) -> Path:
    """Write `value` as JSON with sorted keys, atomically; NaN and Infinity raise ValueError."""
    text = json.dumps(value, indent=indent, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return write_atomically(path, text + "\n")


def read_json(
    path: str | os.PathLike[str], *, missing: str, broken: str = "fetch it again"
) -> dict[str, Any]:
    """Read a JSON file that holds one object.

    Infinity and NaN, which JSON lacks and some files have, become `{"__float__": "Infinity"}`, as
    transformers writes them: what is read can be written again.

    Args:
        path: the file.
        missing: what to do when there is none.
        broken: what to do when it is not JSON.

    Raises:
        Refusal: there is no such file, or no object in it.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream, parse_constant=lambda constant: {"__float__": constant})
    except FileNotFoundError:
        raise Refusal(f"{path}: missing; {missing}") from None
    except OSError as error:
        raise Refusal(f"{path}: cannot be read ({error.strerror}); {broken}") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"{path}: not valid JSON ({error}); {broken}") from None
    if not isinstance(content, dict):
        raise Refusal(f"{path}: no JSON object; {broken}")
    return content


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder to this process alone and remove it afterwards, if it is still there.

    The folder is locked while its process lives. Folders of the same prefix that nobody holds any more,
    the leftovers of killed processes, are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    with open(folder / _LOCK, "w") as lock:
        _try_lock(lock)
        lock.write(HERE)
        lock.flush()
        try:
            with beating(folder / _LOCK):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, final: Path) -> None:
    """Turn a private folder, now complete, into `final`; an existing `final` is replaced."""
    (folder / _LOCK).unlink()
    folder.chmod(0o777 & ~current_umask())
    if final.exists():
        shutil.rmtree(final)
    os.rename(folder, final)


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove private folders of killed processes: not locked, and of this machine or long silent.

    A lock that is free proves nothing of a process elsewhere, where the file system keeps locks to one
    machine: there, no sign of life for minutes does.
    """
    for folder in parent.glob(f"{prefix}*"):
        try:
            with open(folder / _LOCK, "r+") as lock:
                free = _try_lock(lock)
                proves = free and lock.read() == HERE
                if proves or (free is not False and silent(folder / _LOCK, _SILENCE)):
                    shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # being made or removed this moment


@contextmanager
def held(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock file, alone among the processes that it reaches; it is gone afterwards.

    Args:
        path: the lock file; its folder is made.
        wait: until it is free; otherwise the block is told by False that another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a") as lock:
            if _try_lock(lock, wait=wait) is False:
                yield False
                return
            if not _is_open_at(lock, path):
                continue  # its last holder removed it when it was done
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


def _try_lock(file: IO[str], *, wait: bool = False) -> bool | None:
    """Lock a file; False when another process holds it, None on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return None
    return True


def _is_open_at(file: IO[str], path: Path) -> bool:
    """Return whether this open file is the one that stands at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def current_umask() -> int:
    """Return the process's umask (reading it means setting it twice)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
