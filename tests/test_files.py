"""Lock files, and folders that are whole or absent, between processes here and on other machines."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from wildmerge.errors import Refusal
from wildmerge.storage import heartbeat
from wildmerge.storage.folders import Scratch, new_folder, private_folder, remove_leftovers
from wildmerge.storage.heartbeat import HERE, beating
from wildmerge.storage.locks import locked

LOCK_FILE = ".wildmerge.lock"
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
        (folder / LOCK_FILE).write_text(host)
        past = time.time() - 60 * minutes
        os.utime(folder / LOCK_FILE, (past, past))

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


def test_what_appears_meanwhile_is_kept(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(Refusal, match="appeared meanwhile"), new_folder(out) as partial:
        (partial / "mine").touch()
        out.mkdir()
        (out / "theirs").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "theirs"]


def test_a_folder_that_is_replaced_stays_until_the_new_one_is_complete(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    with pytest.raises(KeyboardInterrupt), new_folder(out, overwrite=True) as partial:
        (partial / "half").touch()
        raise KeyboardInterrupt
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "old"]
    with new_folder(out, overwrite=True) as partial:
        (partial / "new").touch()
        assert (out / "old").exists()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "new"]


def test_an_interrupt_between_the_two_renames_leaves_the_old_folder(tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").touch()
    rename = os.rename

    def interrupted(source, target):
        if Path(target) == out and not out.exists() and Path(source).name != "old":
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(out, overwrite=True) as partial:
        (partial / "new").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "old"]


def test_a_folder_is_its_process_s_own_even_if_its_lock_was_taken_for_a_moment(
    tmp_path, monkeypatch
):
    """Another process looks for leftovers just when the folder is made, and has its lock."""
    make = tempfile.mkdtemp

    def taken(**where):
        folder = make(**where)
        other = open(Path(folder, LOCK_FILE), "a")  # noqa: SIM115
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.2, other.close).start()
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", taken)
    with private_folder(tmp_path, "x-") as mine:
        time.sleep(0.4)
        remove_leftovers(tmp_path, "x-")
        assert mine.exists()


def test_a_heart_goes_on_beating_after_a_file_server_s_bad_moment(tmp_path, monkeypatch):
    path = tmp_path / "sign"
    path.touch()
    os.utime(path, (0, 0))
    monkeypatch.setattr(heartbeat, "BEAT", 0.01)
    utime, failures = os.utime, [OSError(116, "Stale file handle"), OSError(5, "I/O error")]

    def failing(path):
        if failures:
            raise failures.pop()
        utime(path)

    monkeypatch.setattr(os, "utime", failing)
    with beating(path):
        ends = time.monotonic() + 30
        while path.stat().st_mtime == 0 and time.monotonic() < ends:
            time.sleep(0.01)
    assert path.stat().st_mtime > 0


def test_scratch_folders_go_with_their_object_and_those_of_a_killed_process_with_the_next(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "from wildmerge.storage.folders import Scratch; s = Scratch('x-'); print(s.path); input()"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=environment, **pipes)
    left = Path(process.stdout.readline().strip())
    living = Scratch("x-")
    assert left.exists()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    second = Scratch("x-")
    assert set(tmp_path.iterdir()) == {living.path, second.path}
    del living
    second.close()
    assert not list(tmp_path.iterdir())
