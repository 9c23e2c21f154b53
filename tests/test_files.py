"""Lock files and private folders between processes, here and on other machines."""

import os
import subprocess
import sys
import time

from wildmerge.storage.files import held, private_folder, remove_leftovers
from wildmerge.storage.heartbeat import HERE

HOLD = """
import sys, time
from pathlib import Path
from wildmerge.storage.files import held
with held(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_held_lock_is_refused_to_others_and_free_when_its_holder_is_killed(tmp_path):
    path = tmp_path / "locks" / "one"
    process = holder(path)
    with held(path, wait=False) as mine:
        assert not mine
    process.kill()
    process.wait()
    with held(path, wait=False) as mine:
        assert mine
    assert not path.exists()


def test_leftovers_of_this_machine_go_at_once_and_those_of_others_when_long_silent(tmp_path):
    def leave(name, host, minutes):
        folder = tmp_path / name
        folder.mkdir()
        (folder / ".lock").write_text(host)
        past = time.time() - 60 * minutes
        os.utime(folder / ".lock", (past, past))

    leave("x-here", HERE, 0)
    leave("x-elsewhere-alive", "elsewhere", 1)  # its lock may not reach this machine
    leave("x-elsewhere-dead", "elsewhere", 11)
    leave("x-being-made", "", 0)
    with private_folder(tmp_path, "x-") as mine:
        remove_leftovers(tmp_path, "x-")
        left = {path.name for path in tmp_path.iterdir()}
    assert left == {mine.name, "x-elsewhere-alive", "x-being-made"}
