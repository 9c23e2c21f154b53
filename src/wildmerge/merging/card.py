"""Everything beside the weights that makes a folder a complete Hugging Face model.

Config, tokenizer and chat template are the base's; the model card names sources, licences and recipe.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from huggingface_hub import metadata_load
from jinja2 import Template

from wildmerge.checkpoints.files import COMPANIONS
from wildmerge.checkpoints.tensors import Checkpoint
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
    for pattern in COMPANIONS:
        for path in base.folder.glob(pattern):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
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
    licences = {ref: licence_of(c) for ref, c in ({recipe.base: base} | dict(experts)).items()}
    front: dict[str, Any] = {
        "library_name": "transformers",
        "base_model": [recipe.base, *recipe.experts],
        "tags": ["merge", "wildmerge"],
    }
    if licences[recipe.base]:
        front["license"] = licences[recipe.base]
    text: str = Template(template, keep_trailing_newline=True).render(
        front=yaml.safe_dump(front, sort_keys=False),
        recipe=recipe,
        recipe_json=json.dumps(recipe.model_dump(mode="json", exclude_none=True), indent=2),
        licences=licences,
        report=report,
    )
    return text


def licence_of(checkpoint: Checkpoint) -> str | None:
    """Return the licence that a checkpoint's own model card states, if it does."""
    path = checkpoint.folder / "README.md"
    try:
        front = metadata_load(path) if path.exists() else None
    except (yaml.YAMLError, ValueError):
        return None  # the hub could not read it, either
    return str(front["license"]) if front and front.get("license") else None
