"""The lock file beside a study: what each checkpoint and each task's data were, byte for byte.

Identities of recipes and results follow from it, so it is made once, on the first run, and answers later
whether anything has changed. A local folder is locked by the digests of its files, a hub checkpoint by
its commit; both with config and the tensors' names, dtypes and shapes, so that what fits together is
known without weights.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wildmerge.errors import Refusal
from wildmerge.hub import references as hub
from wildmerge.hub.resolving import resolve_all, resolve_dataset
from wildmerge.merging.identities import files_of, identity_of
from wildmerge.planning.lock_content import check_content
from wildmerge.storage.digests import digest_of
from wildmerge.storage.files import read_json, write_json
from wildmerge.study.file import Study
from wildmerge.tasks.data import hub_key
from wildmerge.tasks.digests import LockedTask, data_sets, lock_task
from wildmerge.tasks.index import tasks_index

Entry = dict[str, Any]
SCHEMA = 2
"""Of lock files; 2 has the digests of all that is read and no times of files, definitions with all that
they include and call, and the commits of data sets of the hub."""


class Lock:
    """The content of a lock file; `checkpoints` and `tasks` map names to locked entries."""

    def __init__(self, checkpoints: dict[str, Entry], tasks: dict[str, LockedTask]) -> None:
        self.checkpoints = checkpoints
        self.tasks = tasks

    @classmethod
    def read(cls, path: str | Path) -> Lock:
        """Read a lock file; raises Refusal when there is none, it is broken or of another version."""
        content = _read(path)
        check_content(str(path), content, SCHEMA)
        return cls(content["checkpoints"], content["tasks"])

    @classmethod
    def read_old(cls, path: str | Path) -> Lock | None:
        """Read a lock file to renew it; None when there is none.

        Of one of another version only the commits of hub checkpoints are kept.
        """
        if not Path(path).exists():
            return None
        content = _read(path)
        if content.get("schema") == SCHEMA:
            return cls.read(path)
        known = content.get("checkpoints")
        of_hub = {n: e for n, e in known.items() if "repo" in e} if isinstance(known, dict) else {}
        content = {"schema": SCHEMA, "checkpoints": of_hub, "tasks": {}}
        check_content(str(path), content, SCHEMA)
        return cls(of_hub, {})

    def write(self, path: str | Path) -> None:
        """Write the lock file atomically."""
        write_json(path, {"schema": SCHEMA, "checkpoints": self.checkpoints, "tasks": self.tasks})

    def news(self, old: Lock) -> list[str]:
        """Say in a line each what this lock has that an older one has not, or has otherwise."""
        before, now = _locked(old), _locked(self)
        return [
            f"{name} {'has changed' if name in before else 'is new'}"
            for name, content in now.items()
            if before.get(name) != content
        ]

    @property
    def data_sets(self) -> dict[str, str]:
        """Commits of the data sets of the hub that benchmarks read, by `hub org/name@revision`."""
        return {
            key: commit for task in self.tasks.values() for key, commit in data_sets(task).items()
        }

    @property
    def identities(self) -> dict[str, str]:
        """Content identity of every checkpoint by its name in the study."""
        return {name: entry["identity"] for name, entry in self.checkpoints.items()}

    def folder(self, name: str) -> Path:
        """Return where a checkpoint lies; raises Refusal for one of the hub that was not fetched."""
        return hub.folder_of(name, self.checkpoints[name])


def lock_path(study_file: str | Path) -> Path:
    """Return the path of the lock beside a study file: study.yaml -> study.lock.json."""
    path = Path(study_file)
    stem = path.stem if path.suffix == ".yaml" else path.name  # study.yml is another study
    return path.with_name(f"{stem}.lock.json")


def is_current(path: Path) -> bool:
    """Return whether there is a lock, and one of this version."""
    return path.exists() and _read(path).get("schema") == SCHEMA


def _locked(lock: Lock) -> dict[str, Any]:
    """Return what decides ids, by what messages call it."""
    checkpoints = {f"checkpoint {name}": e["identity"] for name, e in lock.checkpoints.items()}
    return checkpoints | {f"benchmark {task}": entry for task, entry in lock.tasks.items()}


def _read(path: str | Path) -> dict[str, Any]:
    again = "delete it and run `wildmerge lock`"
    return read_json(path, missing="run `wildmerge lock` on the study first", broken=again)


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
        old: an earlier lock; its hub checkpoints and data sets keep their commits.
        update: look up hub checkpoints and data sets anew all the same.
        keep: keep what the earlier lock knows of other checkpoints; for a part of a study.

    Raises:
        Refusal: a folder or data file is missing; the hub does not give a repository; two names hold
            the same checkpoint.
    """
    before = old.checkpoints if old else {}
    names = checkpoints_of(study)
    remote = [name for name in names if hub.is_hub(name)]
    kept = {n: before[n] for n in remote if "repo" in before.get(n, {}) and not update}
    checkpoints = kept | _look_up([name for name in remote if name not in kept])
    folders = [name for name in names if name not in checkpoints]
    for name in tqdm(folders, desc="locking", unit="checkpoint", disable=None):
        checkpoints[name] = _lock_folder(name)
    look_up = _looking_up({} if old is None or update else old.data_sets)
    lock = Lock({name: checkpoints[name] for name in names}, lock_tasks(study, look_up))
    for name, base in study.bases.items():
        _refuse_duplicates(name, {"the base": base.checkpoint, **base.experts}, lock.identities)
    if keep:
        lock.checkpoints = before | lock.checkpoints
    return lock


def _look_up(names: Sequence[str]) -> dict[str, Entry]:
    """Look up names on the hub; say first that they are taken for hub ids and why."""
    if not names:
        return {}
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    listed = f"{', '.join(names[:3])}{more}"
    print(f"no folders of these names in {Path.cwd()}; asking the hub: {listed}", file=sys.stderr)
    return resolve_all(names)


def check_unchanged(lock: Lock, name: str) -> None:
    """Raise Refusal when a checkpoint's files are not the locked ones any more, byte for byte."""
    entry = lock.checkpoints[name]
    if "repo" not in entry:
        if identity_of(files_of(name)) != entry["identity"]:
            raise Refusal(
                f"{name}: changed since it was locked; run `wildmerge lock` on the study again"
            )
        return
    folder = lock.folder(name)
    for file, locked in entry["files"].items():
        if file != "README.md" and digest_of(folder / file) != locked["sha256"]:
            raise Refusal(
                f"{name}: {file} is not what was fetched; delete {folder} and fetch it again"
            )


def _lock_folder(name: str) -> Entry:
    files = files_of(name)
    return {"files": files, "identity": identity_of(files), **hub.describe(Path(name))}


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


def lock_tasks(study: Study, commit_of: Callable[[str, str], str]) -> dict[str, LockedTask]:
    """Lock what decides the questions of every benchmark.

    Args:
        study: the study.
        commit_of: gives the commit of a data set of the hub at a revision.
    """
    index = tasks_index(study.tasks_dir)
    tasks = sorted({benchmark.task for benchmark in study.benchmarks})
    return {task: lock_task(index, task, study.task_data, commit_of) for task in tasks}


def _looking_up(known: Mapping[str, str]) -> Callable[[str, str], str]:
    """Return what asks the hub for commits, once each, that are not known."""
    found = dict(known)

    def commit_of(name: str, revision: str) -> str:
        key = hub_key(name, revision)
        if key not in found:
            found[key] = resolve_dataset(name, revision)
        return found[key]

    return commit_of
