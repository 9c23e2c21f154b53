"""What a job leaves for `wildmerge status`: that it runs, or why it failed.

While a job runs, results/<study>/status/<job>.json says where and since when, and shows signs of life.
When the job fails, the file stays and says why; when all went well, it goes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json, write_json
from wildmerge.storage.heartbeat import BEAT, HERE, beating, silent


@dataclass
class JobRecord:
    """A job's state: its models' ids, `failures` by id, `error` once it has ended without success."""

    label: str
    started: float
    host: str = HERE
    pid: int = field(default_factory=os.getpid)
    slurm_job: str | None = None
    models: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def place(self) -> str:
        """Where it runs or ran."""
        return self.host + (f" (SLURM job {self.slurm_job})" if self.slurm_job else "")


def record_path(results: Path, study: str, job: str) -> Path:
    """Return where a job's record stands."""
    return results / study / "status" / f"{job}.json"


@contextmanager
def recording(path: Path, label: str, models: list[str]) -> Iterator[JobRecord]:
    """Keep a job's record at `path` while the block runs; it stays if the block raises."""
    slurm_job = os.environ.get("SLURM_JOB_ID")
    record = JobRecord(label, time.time(), slurm_job=slurm_job, models=models)
    write_json(path, asdict(record))
    try:
        with beating(path):
            yield record
    except BaseException as error:
        record.error = last_line(error) if isinstance(error, Exception) else "stopped by a signal"
        write_json(path, asdict(record))
        raise
    path.unlink(missing_ok=True)


def read_record(path: Path) -> JobRecord | None:
    """Return a job's record, with the error of one that was killed; None if there is none."""
    try:
        record = JobRecord(**read_json(path, missing="the job is done", broken="delete it"))
        if record.error is None and not _lives(record, path):
            last = time.strftime("%H:%M", time.localtime(path.stat().st_mtime))
            record.error = f"killed, or its machine is down (last sign of life {last})"
    except (Refusal, FileNotFoundError):
        if path.exists():
            raise
        return None
    return record


def last_line(error: BaseException) -> str:
    """Return an exception in one line, as a traceback's last line has it."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if kind == "Refusal":
        return text
    return f"{kind}: {text}" if text else kind


def _lives(record: JobRecord, path: Path) -> bool:
    if silent(path, 6 * BEAT):
        return False
    return record.host != HERE or Path(f"/proc/{record.pid}").exists()
