"""Files that are either whole or absent.

Everything durable is written to a temporary sibling, flushed to the disk and then renamed, so that a
kill at any moment leaves the old file, the new file or nothing under the final name.
"""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOCK = ".lock"


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
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
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
    """Remove private folders of killed processes: those of this prefix that are not locked."""
    for folder in parent.glob(f"{prefix}*"):
        try:
            with open(folder / _LOCK, "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue  # its process lives
        except FileNotFoundError:
            continue  # being made or removed this moment


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def current_umask() -> int:
    """Return the process's umask (reading it means setting it twice)."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
