"""Signs of life that other machines can read: a file whose time is renewed while its process lives.

File locks show at once whether a process of this machine is alive, but on some shared file systems they
do not reach other machines. A file's time does, only later.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BEAT = 30.0
"""Seconds between two beats."""
SILENCE = 20 * BEAT
"""Seconds without a beat after which a process of another machine counts as dead."""

HERE = socket.gethostname()


@contextmanager
def beating(path: Path) -> Iterator[None]:
    """Renew a file's time again and again until the block ends."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT):
            with suppress(OSError):  # a file server's bad moment; or its owner has renamed it
                os.utime(path)

    threading.Thread(target=beat, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def silent(path: Path, seconds: float) -> bool:
    """Return whether a file's last beat is longer ago; allow for clocks that differ a little."""
    return time.time() - path.stat().st_mtime > seconds
