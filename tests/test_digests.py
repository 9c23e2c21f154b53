"""A digest is of a file as it is, however it was changed, and of one left alone it is computed once."""

import os
import time

import pytest

from wildmerge.storage import digests
from wildmerge.storage.files import sha256_of


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file that has not changed for longer than the clock of the file system can mistake."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_SETTLED", 0.05)
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 100)
    time.sleep(0.1)
    return path


def read_count(monkeypatch):
    """Count how often a file is read in full."""
    reads = []
    monkeypatch.setattr(digests, "sha256_of", lambda path: reads.append(path) or sha256_of(path))
    return reads


def test_a_file_is_read_once(file, monkeypatch):
    reads = read_count(monkeypatch)
    assert {digests.digest_of(file) for _ in range(3)} == {sha256_of(file)}
    assert len(reads) == 1


def test_bytes_changed_at_the_same_size_and_time_are_seen(file):
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    digests.digest_of(file)
    with file.open("r+b") as stream:
        stream.write(b"b")
    os.utime(file, ns=times)
    assert digests.digest_of(file) == sha256_of(file)
    other = file.with_name("other")
    other.write_bytes(b"c" * 100)
    os.utime(other, ns=times)
    os.replace(other, file)
    assert digests.digest_of(file) == sha256_of(file)


def test_a_file_changed_just_now_is_read_again(file, monkeypatch):
    reads = read_count(monkeypatch)
    monkeypatch.setattr(digests, "_SETTLED", 60.0)
    for _ in range(2):
        digests.digest_of(file)
    assert len(reads) == 2


def test_a_cache_that_cannot_be_written_is_done_without(file, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    assert digests.digest_of(file) == sha256_of(file)
