"""Lock files: one process works on something, the others see that it does or wait."""

import atexit
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from wildmerge.storage.heartbeat import HERE, SILENCE, beating, silent


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock a file against all other processes that its lock reaches; it is gone afterwards.

    Args:
        path: the lock file; its folder is made.
        wait: until it is free; otherwise the block gets False while another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with open(path, "a") as file:
            if try_lock(file, wait=wait) is False:
                yield False
                return
            if not is_open_at(file, path):
                continue  # its last owner removed it when it was done
            try:
                yield True
            finally:
                path.unlink(missing_ok=True)
            return


def try_lock(file: IO[str], *, wait: bool = False) -> bool | None:
    """Lock an open file; False when another process has it, None on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        return None
    return True


def is_open_at(file: IO[str], path: Path) -> bool:
    """Return whether this open file is the one that stands at `path`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


_kept: list[ExitStack] = []  # files open, and so locked, until the process ends


def lock_for_life(path: Path) -> str | None:
    """Lock a file until this process ends, however it ends.

    The lock of a process elsewhere may not reach here. Its file then says by its time that it lives.

    Returns:
        None, or "HOST, process ID" of another process that has the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - stays open
    free = try_lock(file)
    file.seek(0)
    owner = file.read()
    host, _, process = owner.partition(", process ")
    elsewhere = owner and host != HERE and not silent(path, SILENCE)
    unlocked = owner and host == HERE and free is None and Path(f"/proc/{process}").exists()
    if free is False or elsewhere or unlocked:
        file.close()
        return owner or "another process"
    file.truncate(0)
    file.write(f"{HERE}, process {os.getpid()}")
    file.flush()
    stack = ExitStack()
    stack.enter_context(file)
    stack.enter_context(beating(path))
    _kept.append(stack)
    atexit.register(file.truncate, 0)  # at a regular end others need not wait for silence
    return None
