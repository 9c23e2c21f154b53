"""Everything beside the weights that makes a folder a complete Hugging Face model.

Config, tokenizer and chat template are the base's; the model card names sources, licences and recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from jinja2 import Template

from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.merging.companions import copy_companions
from wildmerge.merging.mergekit_config import from_recipe
from wildmerge.merging.replacing import REPORT
from wildmerge.storage.files import write_json
from wildmerge.study.recipe import Recipe


def write_files(
    folder: Path,
    base: Checkpoint,
    experts: Mapping[str, Checkpoint],
    recipe: Recipe,
    *,
    report: Mapping[str, Any],
    dtype: torch.dtype,
) -> None:
    """Write all files of a model folder but its weights; also the merge in mergekit's words."""
    copy_companions(base.folder, folder)
    config = {k: v for k, v in base.config.items() if k != "torch_dtype"}
    stored = str(dtype).removeprefix("torch.")
    write_json(folder / "config.json", config | {"dtype": stored})
    same = None if report.get("alignment") else from_recipe(recipe, stored)
    if same:  # nothing about these experts that only we bridge
        (folder / "mergekit_config.yml").write_text(same, encoding="utf-8")
    write_json(folder / REPORT, dict(report))
    (folder / "README.md").write_text(model_card(base, experts, recipe, report), encoding="utf-8")


def model_card(
    base: Checkpoint,
    experts: Mapping[str, Checkpoint],
    recipe: Recipe,
    report: Mapping[str, Any],
) -> str:
    """Return the model card: front matter that the hub reads, sources, licences, recipe."""
    template = files("wildmerge").joinpath("templates/model_card.md.j2").read_text()
    names = {recipe.base: public_name(recipe.base, base.folder)}
    names |= {reference: public_name(reference, c.folder) for reference, c in experts.items()}
    licences = [licence_of(checkpoint.folder) for checkpoint in (base, *experts.values())]
    shown = recipe.model_copy(
        update={"base": names[recipe.base], "experts": tuple(names[e] for e in recipe.experts)}
    )
    front: dict[str, Any] = {
        "library_name": "transformers",
        "base_model": [name for name in (shown.base, *shown.experts) if _is_repo(name)],
        "tags": ["merge", "wildmerge"],
    }
    if licences[0]:
        front["license"] = licences[0]
    folders = {recipe.base: base.folder} | {e: c.folder for e, c in experts.items()}
    warnings = [_without_paths(text, names, folders) for text in report["warnings"]]
    text: str = Template(template, keep_trailing_newline=True).render(
        front=yaml.safe_dump(front, sort_keys=False),
        recipe=shown,
        recipe_json=json.dumps(shown.model_dump(mode="json", exclude_none=True), indent=2),
        sources=list(zip((shown.base, *shown.experts), licences, strict=True)),
        warnings=warnings,
        report=report,
    )
    return text


def licence_of(folder: Path) -> str | None:
    """Return the licence that a checkpoint's own model card states, if it does."""
    path = folder / "README.md"
    try:
        front = metadata_load(path) if path.exists() else None
    except (yaml.YAMLError, ValueError):
        return None  # the hub could not read it, either
    licence = front.get("license") if front else None
    return licence if isinstance(licence, str) else None


def public_name(reference: str, folder: Path) -> str:
    """Return what others may read of a checkpoint's place: its hub id, else its folder's name."""
    for part in folder.resolve().parts:
        if part.startswith("models--"):  # the hub's cache
            return part.removeprefix("models--").replace("--", "/")
    is_local = Path(reference).expanduser().resolve() == folder.resolve()
    name = reference.partition("@")[0]
    return name if _is_repo(name) and not is_local else folder.resolve().name


def _is_repo(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _without_paths(text: str, names: Mapping[str, str], folders: Mapping[str, Path]) -> str:
    """Return a warning with names for folders, longest first."""
    for reference in sorted(folders, key=lambda reference: -len(str(folders[reference]))):
        whole = rf"(?<![\w./-]){re.escape(str(folders[reference]))}(?![\w-])"
        text = re.sub(whole, names[reference].replace("\\", r"\\"), text)
    return text
