"""Lock files, and folders that are whole or absent, between processes here and on other machines."""

import os
import subprocess
import sys
import time

import pytest

from wildmerge.errors import Refusal
from wildmerge.storage.folders import new_folder, private_folder, remove_leftovers
from wildmerge.storage.heartbeat import HERE
from wildmerge.storage.locks import locked

LOCK = """
import sys, time
from pathlib import Path
from wildmerge.storage.locks import locked
with locked(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def owner(path):
    process = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "mine\n"
    return process


def test_a_lock_is_refused_to_others_and_free_when_its_owner_is_killed(tmp_path):
    path = tmp_path / "locks" / "one"
    process = owner(path)
    with locked(path, wait=False) as mine:
        assert not mine
    process.kill()
    process.wait()
    with locked(path, wait=False) as mine:
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


def test_a_folder_takes_its_name_only_when_complete(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(RuntimeError), new_folder(out) as partial:
        (partial / "half").touch()
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_folder(out) as partial:
        (partial / "whole").touch()
        assert not out.exists()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "whole"]
    with pytest.raises(Refusal, match="exists"), new_folder(out):
        raise AssertionError("unreachable")
    with new_folder(out, overwrite=True) as partial:
        (partial / "other").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "other"]
