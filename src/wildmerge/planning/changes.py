"""What of a study is new, or other than it was locked."""

from __future__ import annotations

from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.hub import references as hub
from wildmerge.merging.identities import files_of, identity_of
from wildmerge.planning.lock import Lock, checkpoints_of, lock_tasks
from wildmerge.study.file import Study
from wildmerge.tasks.data import hub_key
from wildmerge.tasks.digests import LockedTask


def changes(study: Study, lock: Lock) -> list[str]:
    """Say in a line each what of a study its lock does not know, or knows otherwise.

    Nothing is looked up on the network, so of hub checkpoints only new ones are seen.
    """
    names = checkpoints_of(study)
    checkpoints = {name: {"identity": _identity_now(name, lock)} for name in names}
    return Lock(checkpoints, _tasks_now(study, lock)).news(lock)


def _identity_now(name: str, lock: Lock) -> str:
    """Return a checkpoint's identity; that of its lock where it cannot be seen now."""
    entry = lock.checkpoints.get(name, {})
    if not Path(name).is_dir():  # of the hub, or made, or missed, later
        return str(entry.get("identity", "")) if hub.is_hub(name) == ("repo" in entry) else ""
    try:
        return identity_of(files_of(name))
    except Refusal:
        return ""


def _tasks_now(study: Study, lock: Lock) -> dict[str, LockedTask]:
    try:
        known = lock.data_sets
        return lock_tasks(study, lambda *source: known.get(hub_key(*source), ""))
    except Refusal:  # data that are not there are made, or missed, later
        return {b.task: lock.tasks.get(b.task, {}) for b in study.benchmarks}
