"""Merging a recipe: what can be refused is refused first, then the engine writes the model's folder.

Importing this module, and refusing, needs no torch: a wrong recipe is answered at once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildmerge.checkpoints.compatibility import Finding, require_compatible
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal
from wildmerge.merging.identities import identity
from wildmerge.merging.replacing import require_replaceable
from wildmerge.methods import catalogue as methods
from wildmerge.methods.catalogue import Method
from wildmerge.storage.folders import new_folder
from wildmerge.study.recipe import Recipe

Report = dict[str, Any]


def merge(
    recipe: Recipe,
    out: Path,
    *,
    folders: Mapping[str, Path] | None = None,
    identities: Mapping[str, str] | None = None,
    spectra: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    chunk: int | None = None,
    method_folders: Sequence[Path] = (),
    recipe_file: Path | None = None,
) -> Report:
    """Merge a recipe into the Hugging Face model folder `out` and return its merge report.

    Args:
        recipe: base, at least one expert, method and hyperparameters.
        out: appears when it is complete, never before.
        folders: where each checkpoint of the recipe lies; default its name is its folder.
        identities: content identity of each expert, by which methods with a `seed` draw; default that
            of its files.
        spectra: file of each expert's stored spectra (see `wildmerge.merging.spectra`); used by a
            method that asks for them when all experts have one.
        device: "cpu", "cuda" or "cuda:i".
        threads: tensors merged at once on a CPU.
        overwrite: replace an `out` that is an earlier merge and holds nothing that is needed.
        recipe_file: where the recipe was read from, which is not replaced.
        progress: show a bar.
        chunk: elements worked on at once; a choice of speed, never of result.
        method_folders: where methods other than wildmerge's own lie.

    Raises:
        Refusal: checkpoints that do not fit together or cannot be aligned, NaN or Inf, an existing
            `out`, unknown methods, spectra that cannot be read.
    """
    started = time.monotonic()
    checked = _check(recipe, folders or {}, method_folders)
    recipe = checked.recipe
    if overwrite:
        inputs = [checked.base.folder, *(expert.folder for expert in checked.experts.values())]
        require_replaceable(out, inputs + ([recipe_file] if recipe_file else []))

    known = _identities(checked, identities or {})

    import torch

    from wildmerge.checkpoints.alignment import align, warnings_of
    from wildmerge.merging import card, companions, report
    from wildmerge.merging.engine import Engine, function_of
    from wildmerge.merging.spectra import Spectra
    from wildmerge.vectors import linalg

    # one thread a tensor, and many tensors at once: see the engine
    with new_folder(out, overwrite=overwrite) as partial, linalg.one_thread():
        base, experts, alignment = align(checked.base, checked.experts, untie=recipe.untie)
        dtype: torch.dtype = getattr(torch, recipe.dtype or base.dtype)
        engine = Engine(
            base,
            list(experts.values()),
            function_of(recipe, checked.method),
            method=checked.method.name,
            identities=known,
            spectra=Spectra(_stored(checked, spectra or {})),
            dtype=dtype,
            device=device,
            chunk=chunk,
        )
        tensors = engine.run(partial, threads if device == "cpu" else 1, progress)
        for checkpoint in (base, *experts.values()):
            checkpoint.require_unchanged()
        result = report.build(
            recipe,
            tensors,
            warnings=[w for f in checked.findings for w in f.warnings]
            + warnings_of(alignment)
            + companions.warnings_of(base.folder),
            remarks=[text for finding in checked.findings for text in finding.remarks],
            alignment=alignment,
            seconds=time.monotonic() - started,
        )
        card.write_files(partial, base, experts, recipe, report=result, dtype=dtype)
    return result


def require_mergeable(
    recipe: Recipe,
    folders: Mapping[str, Path] | None = None,
    method_folders: Sequence[Path] = (),
) -> None:
    """Raise Refusal for a recipe that cannot be merged, as far as headers and configs show.

    Args:
        recipe: as for `merge`.
        folders: where each checkpoint of the recipe lies; default its name is its folder.
        method_folders: as for `merge`.
    """
    _check(recipe, folders or {}, method_folders)


@dataclass(frozen=True)
class _Checked:
    """A recipe with every hyperparameter, its method, base and experts, and what was found of them."""

    recipe: Recipe
    method: Method
    base: Checkpoint
    experts: dict[str, Checkpoint]
    findings: list[Finding]


def _check(recipe: Recipe, folders: Mapping[str, Path], method_folders: Sequence[Path]) -> _Checked:
    if recipe.method is None or not recipe.experts:
        raise Refusal("recipe: a merge needs a method and at least one expert")
    method = methods.get(recipe.method, method_folders)
    parameters = method.complete(recipe.parameters)
    if method.about.pair and len(recipe.experts) != 2:
        raise Refusal(f"recipe: {method.name} merges two experts, not {len(recipe.experts)}")
    _require_each_once(recipe, folders)
    _require_effect(recipe, method)
    weights = parameters.get("weights")
    if weights and len(weights) != len(recipe.experts):
        raise Refusal(f"recipe: {len(weights)} weights for {len(recipe.experts)} experts")
    if len(recipe.experts) > 1:
        recipe = recipe.model_copy(update={"parameters": parameters})
    base = open_checkpoint(folders.get(recipe.base, recipe.base))
    experts = {e: open_checkpoint(folders.get(e, e), base) for e in recipe.experts}
    return _Checked(recipe, method, base, experts, require_compatible(base, experts))


def _stored(checked: _Checked, files: Mapping[str, Path]) -> list[Path]:
    """Return the experts' spectra when the method reads them and every expert has a file."""
    experts = checked.recipe.experts
    if not checked.method.about.reads_spectra or not all(e in files for e in experts):
        return []
    found = [files[expert] for expert in experts]
    return found if all(file.exists() for file in found) else []


def _identities(checked: _Checked, known: Mapping[str, str]) -> list[str]:
    """Return what the experts' random numbers depend on; nothing where no method draws any.

    Raises:
        Refusal: two experts have the same content, so that the same entries would be drawn for both.
    """
    if "seed" not in checked.recipe.parameters:
        return []
    seen: dict[str, str] = {}
    for name, expert in checked.experts.items():
        first = seen.setdefault(known.get(name) or identity(name, expert.folder), name)
        if first != name:
            raise Refusal(f"recipe: expert {name} has the same content as {first}; remove one")
    return list(seen)


def _require_each_once(recipe: Recipe, folders: Mapping[str, Path]) -> None:
    """Refuse an expert that is given twice, by one name or by two."""
    seen: dict[Path, str] = {}
    for expert in recipe.experts:
        place = Path(folders.get(expert, expert)).resolve()
        if place in seen:
            raise Refusal(
                f"recipe: expert {expert} stands there twice; give it once, with a larger weight"
            )
        seen[place] = expert


def _require_effect(recipe: Recipe, method: Method) -> None:
    """Refuse hyperparameters of a single expert, which every method returns as it is."""
    default = method.complete({})
    changed = [k for k, v in method.complete(recipe.parameters).items() if v != default[k]]
    if len(recipe.experts) == 1 and changed:
        raise Refusal(
            f"recipe: one expert is written as it is, so {', '.join(changed)} would have no effect; "
            "remove it or add experts"
        )
