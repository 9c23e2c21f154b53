"""A lock that a process keeps for life, on this machine and as others see it."""

import os
import subprocess
import sys
import time

from wildmerge.storage.heartbeat import HERE, SILENCE
from wildmerge.storage.locks import lock_for_life

LOCK = """
import sys, time
from pathlib import Path
from wildmerge.storage.locks import lock_for_life
print(lock_for_life(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def take(path):
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def test_a_lock_for_life_ends_with_its_process_and_not_before(tmp_path):
    path = tmp_path / "running"
    first, owner = take(path)
    assert owner == "None"
    second, owner = take(path)
    assert owner == f"{HERE}, process {first.pid}"
    first.kill()
    first.wait()
    third, owner = take(path)
    assert owner == "None"
    third.communicate()
    assert path.read_text() == ""
    second.communicate()


def test_a_process_elsewhere_counts_as_alive_while_it_shows_signs_of_life(tmp_path):
    """Where a lock does not reach other machines, its file's time does."""
    path = tmp_path / "running"
    path.write_text("elsewhere, process 1")
    assert lock_for_life(path) == "elsewhere, process 1"
    past = time.time() - 2 * SILENCE
    os.utime(path, (past, past))
    process, owner = take(path)
    assert owner == "None"
    process.communicate()
