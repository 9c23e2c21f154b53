"""Folders that appear under their name only when they are complete, and folders for a while.

Both grow under a name of their own, locked by the process that fills them. The next process that makes
one of the same kind removes what a killed process left.
"""

import errno
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from wildmerge.errors import Refusal
from wildmerge.storage.files import current_umask
from wildmerge.storage.heartbeat import HERE, SILENCE, beating, silent
from wildmerge.storage.locks import is_open_at, try_lock

_LOCK = ".wildmerge.lock"


@contextmanager
def new_folder(final: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a hidden folder to fill; it becomes `final` when the block ends without an exception.

    Args:
        final: where it shall be.
        overwrite: replace a folder that is there; it stays until the new one is complete.

    Raises:
        Refusal: `final` is there, from the start or meanwhile, and `overwrite` is false; it is no
            folder; its disk is full.
    """
    if final.exists() and not overwrite:
        raise Refusal(f"{final}: exists; give --overwrite to replace it or choose another --out")
    if final.exists() and not final.is_dir():
        raise Refusal(f"{final}: a file, no folder; choose another --out")
    try:
        with private_folder(final.parent, f".{final.name}.partial-") as partial:
            yield partial
            _publish(partial, final, overwrite=overwrite)
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
    folder, lock = _locked_folder(parent, prefix)
    with lock:
        try:
            with beating(folder / _LOCK):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Scratch:
    """A private folder among the machine's temporary files for as long as this object lives."""

    def __init__(self, prefix: str) -> None:
        """Make `path`; leftovers of killed processes with the same prefix are removed first."""
        stack = ExitStack()
        self.path = stack.enter_context(private_folder(Path(tempfile.gettempdir()), prefix))
        self.close = weakref.finalize(self, stack.close)


def remove_leftovers(parent: Path, prefix: str) -> None:
    """Remove private folders of killed processes: not locked, and of this machine or long silent.

    A lock that is free proves nothing of a process elsewhere, where the file system keeps locks to one
    machine: there, no sign of life for minutes does.
    """
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):  # being made or removed this moment, or another user's
            with open(folder / _LOCK, "r+") as lock:
                free = try_lock(lock)
                proves = free and lock.read() == HERE
                if proves or (free is not False and silent(folder / _LOCK, SILENCE)):
                    shutil.rmtree(folder, ignore_errors=True)


def _locked_folder(parent: Path, prefix: str) -> tuple[Path, IO[str]]:
    """Make a folder and lock it; return it and its open lock file.

    Another process that looks for leftovers may have the lock for a moment, so it is waited for.
    """
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        lock = open(folder / _LOCK, "w")  # noqa: SIM115 - stays open
        try_lock(lock, wait=True)
        if is_open_at(lock, folder / _LOCK):
            lock.write(HERE)
            lock.flush()
            return folder, lock
        lock.close()  # taken for a leftover and removed, by a clock that is far ahead


def _publish(folder: Path, final: Path, *, overwrite: bool) -> None:
    """Turn a private folder, now complete, into `final`; what it replaces is removed last."""
    folder.chmod(0o777 & ~current_umask())
    while not _renamed(folder, final):
        if not overwrite:
            raise Refusal(f"{final}: appeared meanwhile, made by another process, and was kept")
        with private_folder(final.parent, f".{final.name}.replaced-") as aside:
            if _swapped(folder, final, aside / "old"):
                break
    (final / _LOCK).unlink(missing_ok=True)


def _renamed(folder: Path, final: Path) -> bool:
    """Rename a folder; False where there is another of that name that is not empty."""
    try:
        os.rename(folder, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _swapped(folder: Path, final: Path, old: Path) -> bool:
    """Move `final` to `old` and `folder` to `final`, or neither."""
    try:
        with suppress(FileNotFoundError):  # another process is replacing it, too
            os.rename(final, old)
        return _renamed(folder, final)
    except BaseException:
        if old.exists() and not final.exists():
            os.rename(old, final)
        raise
