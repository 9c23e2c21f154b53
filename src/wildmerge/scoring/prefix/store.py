"""Arrays on disk, found by the digest of what they were made from.

Tokenised requests and pass plans depend on the benchmark and the tokenizer, not on the model's
weights, so they are made for the first model of a base and read for all others. Plain .npz files,
never pickle.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from wildmerge.storage.files import write_atomically

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 2
"""Raise it when other tokens or passes are made from the same requests."""

Arrays = TypeVar("Arrays", bound="DataclassInstance")


class ArrayStore:
    """A folder of dataclasses whose fields are all arrays, one file each.

    Args:
        folder: Where the files are kept; None keeps nothing.
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self._folder = Path(folder) if folder is not None else None

    def get(self, kind: type[Arrays], made_from: Any, make: Callable[[], Arrays]) -> Arrays:
        """Return what `make` returned for the same `made_from` before, or call it now.

        Args:
            kind: The dataclass to return; its fields are arrays of numbers.
            made_from: What decides the content, as JSON; None if that is not known: nothing is
                kept.
            make: Builds the arrays when there is no sound file.
        """
        if self._folder is None or made_from is None:
            return make()
        text = json.dumps([VERSION, kind.__name__, made_from], sort_keys=True)
        path = (
            self._folder / f"{kind.__name__}-{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
        )
        stored = _read(path, kind)
        if stored is None:
            stored = make()
            buffer = io.BytesIO()
            np.savez_compressed(buffer, **{f.name: getattr(stored, f.name) for f in fields(kind)})
            write_atomically(path, buffer.getvalue())
        return stored


def _read(path: Path, kind: type[Arrays]) -> Arrays | None:
    """Read a stored dataclass; None if the file is absent or damaged (by its checksums)."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return kind(**{item.name: archive[item.name] for item in fields(kind)})
    except (FileNotFoundError, zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError):
        return None
