"""The files that a complete model needs beside weights and config: data is copied, code is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from wildmerge.checkpoints.files import COMPANIONS, CONFIG

TEMPLATES = "additional_chat_templates/*.jinja"
"""Chat templates beside the main one, as transformers saves them."""


def copy_companions(base: Path, folder: Path) -> None:
    """Copy tokenizer, chat templates and processors of a base's folder; no link that leads out of it."""
    for path in _companions(base):
        if path.is_file() and not _leads_out(path, base):
            target = folder / path.relative_to(base)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)


def warnings_of(base: Path) -> list[str]:
    """Say what of a base's folder is not copied: code that its JSON files name, links that lead out."""
    linked = sorted(str(p.relative_to(base)) for p in _companions(base) if _leads_out(p, base))
    named = any(_names_code(path) for path in (base / CONFIG, *_companions(base)))
    found = []
    if named:
        code = ", ".join(sorted(path.name for path in base.glob("*.py"))) or "not in its folder"
        found.append(
            f"{base}: its config names code of its own ({code}), which is not copied; copy it "
            "beside the merged model to load that with trust_remote_code"
        )
    if linked:
        found.append(
            f"{base}: {', '.join(linked)}: links to other folders, which are not followed; copy the "
            "files themselves"
        )
    return found


def _companions(base: Path) -> Iterator[Path]:
    for pattern in (*COMPANIONS, TEMPLATES):
        yield from base.glob(pattern)


def _leads_out(path: Path, base: Path) -> bool:
    """Return whether a file lies outside of the folder; the hub's cache links to blobs of its own."""
    home = base.resolve()
    cached = [parent for parent in home.parents if parent.name.startswith("models--")]
    return not path.resolve().is_relative_to(cached[0] if cached else home)


def _names_code(path: Path) -> bool:
    """Return whether a JSON file has an `auto_map`: code that would run wherever it is loaded."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False  # whoever loads it says so
    return isinstance(content, dict) and bool(content.get("auto_map"))
