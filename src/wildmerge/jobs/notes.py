"""What a job leaves for `wildmerge status`: that it runs, or why it failed.

While a job runs, results/<study>/status/<job>.json says where and since when, and shows signs of life.
When the job fails, the file stays and says why; when all went well, it goes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wildmerge.storage.files import write_json
from wildmerge.storage.heartbeat import BEAT, HERE, beating, silent


@dataclass
class Note:
    """A job's own word: `failures` by model id, `error` once it has ended without success."""

    label: str
    started: float
    host: str = HERE
    pid: int = field(default_factory=os.getpid)
    slurm_job: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def place(self) -> str:
        """Where it runs or ran."""
        return self.host + (f" (SLURM job {self.slurm_job})" if self.slurm_job else "")


def note_path(results: Path, study: str, job: str) -> Path:
    """Return where a job's note stands."""
    return results / study / "status" / f"{job}.json"


@contextmanager
def noted(path: Path, label: str) -> Iterator[Note]:
    """Keep a job's note at `path` while the block runs; it stays if the block raises."""
    note = Note(label, time.time(), slurm_job=os.environ.get("SLURM_JOB_ID"))
    write_json(path, asdict(note))
    try:
        with beating(path):
            yield note
    except BaseException as error:
        note.error = last_line(error) if isinstance(error, Exception) else "stopped by a signal"
        write_json(path, asdict(note))
        raise
    path.unlink(missing_ok=True)


def read_note(path: Path) -> Note | None:
    """Return a job's note, with the error of one that died without a word; None if there is none."""
    try:
        note = Note(**json.loads(path.read_text(encoding="utf-8")))
        if note.error is None and not _lives(note, path):
            last = time.strftime("%H:%M", time.localtime(path.stat().st_mtime))
            note.error = f"killed, or its machine is down (last sign of life {last})"
    except FileNotFoundError:
        return None
    return note


def last_line(error: BaseException) -> str:
    """Return an exception in one line, as a traceback's last line has it."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if kind == "Refusal":
        return text
    return f"{kind}: {text}" if text else kind


def _lives(note: Note, path: Path) -> bool:
    if silent(path, 6 * BEAT):
        return False
    return note.host != HERE or Path(f"/proc/{note.pid}").exists()
