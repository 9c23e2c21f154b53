"""Being stopped: by Ctrl-C, or by a scheduler, which sends SIGTERM and later SIGKILL.

Both raise KeyboardInterrupt in the main thread, so that what was begun is removed. Python drops an
exception that is raised inside a destructor or a callback of the garbage collector; an interrupt that
fell into one is sent again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_PAUSE = 0.05
"""Seconds until an interrupt is sent again: by then the destructor that it fell into is over."""


def stop_on_signals() -> None:
    """Have SIGTERM stop this process as Ctrl-C does, wherever in the program either arrives."""
    signal.signal(signal.SIGTERM, _terminate)
    default = sys.unraisablehook
    if default.__module__ == __name__:  # this one already
        return

    def send_again(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            default(unraisable)
            return
        signal.signal(signal.SIGTERM, _terminate)
        timer = threading.Timer(_PAUSE, os.kill, (os.getpid(), signal.SIGTERM))
        timer.daemon = True
        timer.start()

    sys.unraisablehook = send_again


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # often sent more than once
    raise KeyboardInterrupt
