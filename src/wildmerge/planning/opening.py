"""Opening a study: load it, check it, read its lock, leave out what it skips.

Every command and the workflow open a study here and nowhere else, so that what one of them refuses, all
of them do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from wildmerge.checkpoints.adapter import is_adapter
from wildmerge.checkpoints.chat import has_chat_template
from wildmerge.errors import Refusal
from wildmerge.hub import references as hub
from wildmerge.planning.admission import OpenStudy, admit
from wildmerge.planning.changes import changes
from wildmerge.planning.lock import Lock, checkpoints_of, is_current, lock_path, make_lock
from wildmerge.study.file import Study, load_study
from wildmerge.tasks.index import check_benchmarks

MADE = "results/"
"""Checkpoints below this folder may be missing: rules of the workflow make those of the examples."""


def read_study(
    path: str | Path, bases: Sequence[str] | None = None, limit: int | None = None
) -> Study:
    """Load a study file and check all that can be known before it is locked.

    Args:
        path: the YAML file.
        bases: names of the bases to keep; default all.
        limit: at most so many items of every benchmark.

    Raises:
        Refusal: one line that names the file, the key and the remedy.
    """
    study = load_study(path, bases, limit)
    check_benchmarks(study, str(path))
    _check_checkpoints(study, str(path))
    return study


def open_study(
    path: str | Path, bases: Sequence[str] | None = None, limit: int | None = None
) -> OpenStudy:
    """Return a locked study without the experts that it skips.

    Args:
        path: as of `read_study`.
        bases: likewise.
        limit: likewise.

    Raises:
        Refusal: as of `read_study`; there is no lock, or it does not know the whole study.
    """
    study, where = read_study(path, bases, limit), lock_path(path)
    lock = Lock.read(where)
    for name in _unknown_to(lock, study):
        raise Refusal(f"{where}: does not know {name}; run `wildmerge lock {path}` again")
    return admit(study, lock)


def changes_of(
    path: str | Path, bases: Sequence[str] | None = None, limit: int | None = None
) -> list[str]:
    """Say in a line each why a study's lock has to be renewed; nothing when it stands, or is not there.

    Args:
        path: as of `read_study`.
        bases: likewise.
        limit: likewise.

    Raises:
        Refusal: as of `read_study`; the lock is broken.
    """
    study, where = read_study(path, bases, limit), lock_path(path)
    if not where.exists():
        return []
    if not is_current(where):
        return ["the lock is of an earlier version"]
    return changes(study, Lock.read(where))


def lock_study(
    path: str | Path,
    bases: Sequence[str] | None = None,
    limit: int | None = None,
    *,
    update: bool = False,
) -> OpenStudy:
    """Lock a study, write the lock beside it and return the study as `open_study` does.

    Args:
        path: as of `read_study`.
        bases: likewise; what the lock knows of other bases stays.
        limit: likewise.
        update: look up hub checkpoints anew, which keep their commits otherwise.

    Raises:
        Refusal: as of `read_study`; a checkpoint or data are missing, or an expert does not merge.
    """
    study, where = read_study(path, bases, limit), lock_path(path)
    old = Lock.read_old(where)
    lock = make_lock(study, old, update=update, keep=bool(bases))
    opened = admit(study, lock)  # before the lock stands, which jobs rely on
    lock.write(where)
    return replace(opened, renewed=lock.news(old) if old else [])


def require_chat_templates(opened: OpenStudy) -> None:
    """Raise Refusal for a checkpoint that is scored with a chat template and has none.

    Needs the checkpoints' files, not their weights. An adapter is scored with its base's tokenizer.
    """
    if not opened.study.evaluation.chat_template:
        return
    for name, base in opened.study.bases.items():
        for reference in (base.checkpoint, *base.experts.values()):
            adapter = is_adapter(opened.lock.checkpoints[reference]["config"])
            if not adapter and not has_chat_template(opened.lock.folder(reference)):
                raise Refusal(
                    f"bases.{name}: {reference}: its tokenizer has no chat template; add one as "
                    "chat_template.jinja, or set evaluation.chat_template: false"
                )


def ensure_locked(path: str | Path, bases: Sequence[str] | None = None) -> OpenStudy:
    """Open a study; lock it first where its lock is missing or does not know all of it."""
    study, where = read_study(path, bases), lock_path(path)
    if is_current(where) and not _unknown_to(Lock.read(where), study):
        return open_study(path, bases)
    return lock_study(path, bases)


def _unknown_to(lock: Lock, study: Study) -> list[str]:
    new = [f"checkpoint {name}" for name in checkpoints_of(study) if name not in lock.checkpoints]
    return new + [f"benchmark {b.task}" for b in study.benchmarks if b.task not in lock.tasks]


def _check_checkpoints(study: Study, where: str) -> None:
    """Refuse a checkpoint that is no folder, not made by the workflow and no hub id."""
    beside = Path(where).parent
    for name, base in study.bases.items():
        keys = {"checkpoint": base.checkpoint}
        keys |= {f"experts.{expert}": folder for expert, folder in base.experts.items()}
        for key, folder in keys.items():
            there = Path(folder).is_dir() or folder.startswith(MADE)
            if not there and not hub.is_hub(folder, beside):
                raise Refusal(f"{where}: bases.{name}.{key}: {hub.no_folder(folder, beside)}")
