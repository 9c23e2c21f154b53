"""Where a study's checkpoints come from, for its readers: name, revision and licence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.hub.references import folder_of
from wildmerge.merging.card import licence_of, public_name
from wildmerge.planning.lock import Entry, Lock
from wildmerge.study.file import Study


def list_sources(study: Study, lock: Lock) -> Iterator[dict[str, str]]:
    """Yield a row a checkpoint: what it is in the study, its source, revision and licence.

    The source of a local folder is its name, the revision a digest of its files; of a hub checkpoint its
    id and commit. The licence is what its model card says, if it is on this machine.
    """
    for base, members in study.bases.items():
        named = {"": members.checkpoint, **members.experts}
        for expert, reference in named.items():
            entry = lock.checkpoints[reference]
            folder = _folder(reference, entry)
            yield {
                "base": base,
                "kind": "expert" if expert else "base",
                "expert": expert,
                "source": str(
                    entry.get("repo") or (public_name(reference, folder) if folder else "")
                ),
                "revision": str(entry.get("commit", entry["identity"])),
                "licence": (licence_of(folder) if folder else None) or "",
            }


def _folder(reference: str, entry: Entry) -> Path | None:
    """Return the checkpoint's folder, if it is on this machine."""
    try:
        return folder_of(reference, entry)
    except Refusal:
        return None
