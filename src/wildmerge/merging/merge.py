"""Merging a recipe: what can be refused is refused first, then the engine writes the model's folder.

Importing this module, and refusing, needs no torch: a wrong recipe is answered at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wildmerge.checkpoints.compatibility import Finding, require_compatible
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal
from wildmerge.methods import catalogue as methods
from wildmerge.study.recipe import Recipe

Report = dict[str, Any]


def merge(
    recipe: Recipe,
    out: Path,
    *,
    folders: Mapping[str, Path] | None = None,
    spectra: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    chunk: int | None = None,
) -> Report:
    """Merge a recipe into the Hugging Face model folder `out` and return its merge report.

    Args:
        recipe: base, at least one expert, method and hyperparameters.
        out: appears when it is complete, never before.
        folders: where each checkpoint of the recipe lies; default its name is its folder.
        spectra: file of each expert's stored spectra (see `wildmerge.merging.spectra`); used by a
            method that asks for them when all experts have one.
        device: "cpu", "cuda" or "cuda:i".
        threads: tensors merged at once on a CPU.
        overwrite: replace an existing `out`.
        progress: show a bar.
        chunk: elements worked on at once; a choice of speed, never of result.

    Raises:
        Refusal: checkpoints that do not fit together, NaN, an existing `out`, unknown methods.
    """
    started = time.monotonic()
    recipe, base, experts, findings = _checked(recipe, folders or {})
    from wildmerge.merging.engine import write_model  # imports torch

    return write_model(
        recipe,
        base,
        experts,
        out,
        spectra=_stored(recipe, spectra or {}),
        device=device,
        threads=threads,
        overwrite=overwrite,
        progress=progress,
        chunk=chunk,
        findings=findings,
        started=started,
    )


def require_mergeable(recipe: Recipe, folders: Mapping[str, Path] | None = None) -> None:
    """Raise Refusal for a recipe that cannot be merged, as far as headers and configs tell.

    Args:
        recipe: as for `merge`.
        folders: where each checkpoint of the recipe lies; default its name is its folder.
    """
    _checked(recipe, folders or {})


def _checked(
    recipe: Recipe, folders: Mapping[str, Path]
) -> tuple[Recipe, Checkpoint, dict[str, Checkpoint], list[Finding]]:
    """Return the recipe with all hyperparameters, its base and experts, and what was found of them."""
    if recipe.method is None or not recipe.experts:
        raise Refusal("recipe: a merge needs a method and at least one expert")
    parameters = methods.get(recipe.method).complete(recipe.parameters)
    weights = parameters.get("weights")
    if weights and len(weights) != len(recipe.experts):
        raise Refusal(f"recipe: {len(weights)} weights for {len(recipe.experts)} experts")
    if len(recipe.experts) > 1:
        recipe = recipe.model_copy(update={"parameters": parameters})
    base = open_checkpoint(folders.get(recipe.base, recipe.base))
    experts = {e: open_checkpoint(folders.get(e, e), base) for e in recipe.experts}
    return recipe, base, experts, require_compatible(base, experts)


def _stored(recipe: Recipe, files: Mapping[str, Path]) -> list[Path]:
    """Return the experts' spectra when the method reads them and every expert has a file."""
    if recipe.method != "tsv_m" or not all(expert in files for expert in recipe.experts):
        return []
    found = [files[expert] for expert in recipe.experts]
    return found if all(file.exists() for file in found) else []
