"""Whether a tokenizer can put prompts into a chat template, known from its files alone."""

from __future__ import annotations

from pathlib import Path

from wildmerge.storage.files import read_json


def has_chat_template(folder: Path) -> bool:
    """Return whether the tokenizer of a model folder has a default chat template.

    Raises:
        Refusal: a file that may hold it is broken.
    """
    if (folder / "chat_template.jinja").exists():
        return True
    for name in ("tokenizer_config.json", "chat_template.json"):
        if not (folder / name).exists():
            continue
        found = read_json(folder / name, missing="fetch it again").get("chat_template")
        if isinstance(found, list):  # of several, transformers takes the one called default
            found = any(isinstance(each, dict) and each.get("name") == "default" for each in found)
        if found:
            return True
    return False
