"""Everything that comes over the network, before anything is computed: checkpoints and benchmark data.

Afterwards a study runs without network: checkpoints lie in the hub's cache, data in that of datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wildmerge.errors import Refusal, unknown
from wildmerge.hub import downloading
from wildmerge.hub import references as hub
from wildmerge.hub.resolving import resolve_all
from wildmerge.planning.lock import checkpoints_of
from wildmerge.planning.opening import ensure_locked, read_study

DATA = "data"
"""What stands for a study's benchmark data among the names of what to fetch."""


def fetch_references(references: Sequence[str]) -> dict[str, str]:
    """Fetch hub checkpoints as they are now; return the folder of each.

    Raises:
        Refusal: something is no hub id, or the hub does not give it.
    """
    entries = resolve_all(references)
    downloading.fetch(*entries.values())
    for reference, entry in entries.items():
        hub.remember(*hub.parts(reference), entry["commit"])  # last: by now all its files are there
    return {name: str(hub.folder_of(name, entry)) for name, entry in entries.items()}


def fetch_study(
    study_file: str | Path, names: Sequence[str] = (), bases: Sequence[str] | None = None
) -> dict[str, str]:
    """Fetch what a study reads from the network, at the commits of its lock.

    Args:
        study_file: its YAML file; it is locked first where it is not.
        names: hub checkpoints of the study, and "data" for its benchmarks' data; default everything.
        bases: names of the bases that matter; default all.

    Returns:
        The folder of each checkpoint by its name, and the names of the benchmarks.

    Raises:
        Refusal: says all that could not be fetched, after the rest was.
    """
    study = read_study(study_file, bases)
    known = [name for name in checkpoints_of(study) if hub.is_hub(name)]
    for name in names:
        if name not in {*known, DATA}:
            raise Refusal(f"{study_file}: {unknown('hub checkpoint', name, [*known, DATA])}")
    wanted = [name for name in names or known if name != DATA]
    entries = _entries(wanted, study_file, bases)
    problems = []
    try:
        downloading.fetch(*entries.values())
    except Refusal as refusal:
        problems.append(str(refusal))
    tasks: list[str] = []
    if not names or DATA in names:
        from wildmerge.tasks.fetching import fetch_data

        tasks, unfetched = fetch_data(study, ensure_locked(study_file, bases).lock.tasks)
        problems += unfetched
    if problems:
        raise Refusal("; ".join(problems))
    folders = {name: str(hub.folder_of(name, entry)) for name, entry in entries.items()}
    return folders | ({DATA: ", ".join(tasks)} if tasks else {})


def _entries(
    names: Sequence[str], study_file: str | Path, bases: Sequence[str] | None
) -> dict[str, hub.Entry]:
    """Return the lock's entries of hub checkpoints; the study is locked where they are missing."""
    if not names:
        return {}
    opened = ensure_locked(study_file, bases)
    members = checkpoints_of(opened.study)  # a skipped expert is not needed
    return {name: opened.lock.checkpoints[name] for name in names if name in members}
