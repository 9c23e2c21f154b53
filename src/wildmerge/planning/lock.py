"""The lock file beside a study: what each checkpoint and each task's data were, byte for byte.

Identities of recipes and results follow from it, so it is made once, on the first run, and answers later
whether anything has changed. A local folder is locked by the digests of its files, a hub checkpoint by
its commit; both with config and the tensors' names, dtypes and shapes, so that what fits together is
known without weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wildmerge.checkpoints.files import model_files
from wildmerge.errors import Refusal
from wildmerge.hub import references as hub
from wildmerge.hub.resolving import resolve_all
from wildmerge.storage.files import read_json, sha256_of, write_json
from wildmerge.study.file import Study
from wildmerge.study.recipe import short_hash
from wildmerge.tasks.sources import data_files, definition_files

Entry = dict[str, Any]


class Lock:
    """The content of a lock file; `checkpoints` and `tasks` map names to locked entries."""

    def __init__(self, checkpoints: dict[str, Entry], tasks: dict[str, Entry]) -> None:
        self.checkpoints = checkpoints
        self.tasks = tasks

    @classmethod
    def read(cls, path: str | Path) -> Lock:
        """Read a lock file; raises Refusal when there is none or it is broken."""
        again = "delete it and run `wildmerge lock`"
        content = read_json(path, missing="run `wildmerge lock` on the study first", broken=again)
        try:
            return cls(content["checkpoints"], content["tasks"])
        except KeyError:
            raise Refusal(f"{path}: not a lock file; {again}") from None

    def write(self, path: str | Path) -> None:
        """Write the lock file atomically."""
        write_json(path, {"schema": 1, "checkpoints": self.checkpoints, "tasks": self.tasks})

    @property
    def identities(self) -> dict[str, str]:
        """Content identity of every checkpoint by its name in the study."""
        return {name: entry["identity"] for name, entry in self.checkpoints.items()}

    def folder(self, name: str) -> Path:
        """Return where a checkpoint lies; raises Refusal for one of the hub that was not fetched."""
        return hub.folder_of(name, self.checkpoints[name])


def lock_path(study_file: str | Path) -> Path:
    """Return the path of the lock beside a study file: study.yaml -> study.lock.json."""
    return Path(study_file).with_suffix(".lock.json")


def checkpoints_of(study: Study) -> list[str]:
    """Return the name (folder or hub id) of every checkpoint of a study, sorted."""
    bases = study.bases.values()
    return sorted({ref for b in bases for ref in (b.checkpoint, *b.experts.values())})


def make_lock(
    study: Study, old: Lock | None = None, *, update: bool = False, keep: bool = False
) -> Lock:
    """Lock every checkpoint and all local task data of a study.

    Args:
        study: the study.
        old: an earlier lock; its hub checkpoints keep their commits, and files whose size and time did
            not change are not read again.
        update: look up the hub checkpoints anew all the same.
        keep: keep what the earlier lock knows of other checkpoints; for a part of a study.

    Raises:
        Refusal: a folder or data file is missing; the hub does not give a repository; two names hold
            the same checkpoint.
    """
    before = old.checkpoints if old else {}
    names = checkpoints_of(study)
    remote = [name for name in names if hub.is_hub(name)]
    kept = {n: before[n] for n in remote if "repo" in before.get(n, {}) and not update}
    checkpoints = kept | resolve_all(name for name in remote if name not in kept)
    folders = [name for name in names if name not in checkpoints]
    for name in tqdm(folders, desc="locking", unit="checkpoint", disable=None):
        checkpoints[name] = _lock_folder(name, before.get(name))
    lock = Lock({name: checkpoints[name] for name in names}, _lock_tasks(study))
    for name, base in study.bases.items():
        _refuse_duplicates(name, {"the base": base.checkpoint, **base.experts}, lock.identities)
    if keep:
        lock.checkpoints = before | lock.checkpoints
    return lock


def check_unchanged(lock: Lock, name: str) -> None:
    """Raise Refusal when a checkpoint's files are not the locked ones any more."""
    entry = lock.checkpoints[name]
    if "repo" in entry:
        lock.folder(name)  # of a commit only sizes can change; digests were checked on arrival
    elif _identity(_lock_files(name, entry)) != entry["identity"]:
        raise Refusal(
            f"{name}: changed since it was locked; run `wildmerge lock` on the study again"
        )


def _lock_folder(name: str, before: Entry | None) -> Entry:
    files = _lock_files(name, before)
    return {"files": files, "identity": _identity(files), **hub.describe(Path(name))}


def _lock_files(name: str, before: Entry | None) -> dict[str, Entry]:
    folder = Path(name)
    if not folder.is_dir():
        raise Refusal(f"{name}: no such checkpoint folder; check the path in the study")
    known = before["files"] if before else {}
    names = {str(path.relative_to(folder)): path for path in model_files(folder)}
    return {name: _lock_file(path, known.get(name)) for name, path in names.items()}


def _identity(files: Mapping[str, Entry]) -> str:
    """Return the identity of a folder's content: of all the files that are read of it."""
    digests = {file: entry["sha256"] for file, entry in files.items()}
    return f"sha256:{short_hash(digests)}"


def _lock_file(path: Path, before: Entry | None) -> Entry:
    state = path.stat()
    size_and_time = {"size": state.st_size, "mtime_ns": state.st_mtime_ns}
    if before and size_and_time.items() <= before.items():
        return before
    return {**size_and_time, "sha256": sha256_of(path)}


def _refuse_duplicates(
    base: str, members: Mapping[str, str], identities: Mapping[str, str]
) -> None:
    seen: dict[str, str] = {}
    for member, reference in members.items():
        first = seen.setdefault(identities[reference], member)
        if first != member:
            raise Refusal(
                f"bases.{base}: '{member}' ({reference}) has the same bytes as '{first}'; remove one"
            )


def _lock_tasks(study: Study) -> dict[str, Entry]:
    """Hash the definition and the data of every task that does not come from lm-eval alone."""
    tasks = {}
    for benchmark in study.benchmarks:
        files = [*definition_files(study, benchmark.task), *data_files(study, benchmark.task)]
        tasks[benchmark.task] = {str(f): sha256_of(f) for f in files}
    return dict(sorted(tasks.items()))
