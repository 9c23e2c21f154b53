"""What `--overwrite` may replace: an earlier merge, and nothing that is still needed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json

REPORT = "merge_report.json"
"""The file by which a folder is known as a merge of this program."""


def require_replaceable(out: Path, needed: Iterable[Path]) -> None:
    """Raise Refusal unless `out` is free, empty or an earlier merge that holds nothing needed.

    Args:
        out: the folder of the model to write.
        needed: files and folders that have to stay: the checkpoints that are merged and the recipe.
    """
    if not out.is_dir():
        return
    place = out.resolve()
    for path in (Path.cwd(), *needed):
        for real in (path.resolve(), *_links(path)):
            if real.is_relative_to(place):
                raise Refusal(f"{out}: holds {path}, so kept; choose another --out")
    if any(out.iterdir()) and not _is_merge(out):
        raise Refusal(f"{out}: not a merged model of wildmerge, so kept; choose another --out")


def _links(path: Path) -> list[Path]:
    """Return where the links in a folder lead."""
    if not path.is_dir():
        return []
    return [inner.resolve() for inner in path.iterdir() if inner.is_symlink()]


def _is_merge(folder: Path) -> bool:
    try:
        report = read_json(folder / REPORT, missing="no merge")
    except (Refusal, OSError):
        return False
    return isinstance(report, dict) and {"recipe", "tensors"} <= report.keys()
