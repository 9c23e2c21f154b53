"""Whole files appear under their names, and nothing but a file is ever replaced by one."""

import os

import pytest

from wildmerge.errors import Refusal
from wildmerge.storage.files import write_atomically


def test_a_file_is_replaced_and_a_pipe_or_a_folder_is_not(tmp_path):
    file, pipe, folder = (tmp_path / name for name in ("file", "pipe", "folder"))
    file.write_text("old")
    os.mkfifo(pipe)
    folder.mkdir()
    write_atomically(file, "new")
    assert file.read_text() == "new"
    for path in (pipe, folder):
        with pytest.raises(Refusal, match="something else than a file"):
            write_atomically(path, "new")
    assert pipe.is_fifo() and folder.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "pipe", "folder"}
