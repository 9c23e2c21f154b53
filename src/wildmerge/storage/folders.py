"""Folders that appear under their name only when they are complete, and folders for a while.

Both grow under a name of their own, locked by the process that fills them. The next process that makes
one of the same kind removes what a killed process left.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.storage.files import current_umask
from wildmerge.storage.heartbeat import HERE, beating, silent
from wildmerge.storage.locks import try_lock

_LOCK = ".lock"
_SILENCE = 600.0  # seconds; many times heartbeat.BEAT


@contextmanager
def new_folder(final: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder to fill; it becomes `final` when the block ends without an exception.

    Raises:
        Refusal: `final` exists and `overwrite` is false, or its disk is full.
    """
    if final.exists() and not overwrite:
        raise Refusal(f"{final}: exists; give --overwrite to replace it or choose another --out")
    try:
        with private_folder(final.parent, f".{final.name}.partial-") as partial:
            yield partial
            _publish(partial, final)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Refusal(
            f"{final}: {error.strerror}; free some space or choose a folder on another disk"
        ) from None


@contextmanager
def private_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Give a new folder to this process alone and remove it afterwards, if it is still there.

    The folder is locked while its process lives. Unlocked folders of the same prefix, the leftovers of
    killed processes, are removed first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(parent, prefix)
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    with open(folder / _LOCK, "w") as lock:
        try_lock(lock)
        lock.write(HERE)
        lock.flush()
        try:
            with beating(folder / _LOCK):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove private folders of killed processes: not locked, and of this machine or long silent.

    A lock that is free proves nothing of a process elsewhere, where the file system keeps locks to one
    machine: there, no sign of life for minutes does.
    """
    for folder in parent.glob(f"{prefix}*"):
        try:
            with open(folder / _LOCK, "r+") as lock:
                free = try_lock(lock)
                proves = free and lock.read() == HERE
                if proves or (free is not False and silent(folder / _LOCK, _SILENCE)):
                    shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            continue  # being made or removed this moment


def _publish(folder: Path, final: Path) -> None:
    """Turn a private folder, now complete, into `final`; an existing `final` is replaced."""
    (folder / _LOCK).unlink()
    folder.chmod(0o777 & ~current_umask())
    if final.exists():
        shutil.rmtree(final)
    os.rename(folder, final)
