"""The report of a merge: its recipe, what happened to every tensor, and remarks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from wildmerge.study.recipe import Recipe

Report = dict[str, Any]
Facts = dict[str, Any]

PACKAGES = ("wildmerge", "torch", "safetensors")
"""The packages whose arithmetic or files a merge rests on."""
_NAMED = 3
"""How many tensors a remark names; the report has a line for each."""
_ROUNDING = 1e-6
"""A share of the energy of an update up to which there is none of it."""


def build(
    recipe: Recipe,
    tensors: Mapping[str, Facts],
    *,
    warnings: Sequence[str],
    remarks: Sequence[str],
    alignment: Facts,
    seconds: float,
) -> Report:
    """Return the report of a merge.

    Args:
        recipe: with every hyperparameter written out.
        tensors: the facts of each tensor, with the L2 norm of its update and of what rounding to the
            output dtype took from it or added.
        warnings: what of checkpoints and alignment may make a merge wrong.
        remarks: what else is to be said of them.
        alignment: how the experts were aligned with the base.
        seconds: how long it took.
    """
    norm, lost = (
        math.hypot(*(facts[name] for facts in tensors.values())) for name in ("norm", "lost")
    )
    return {
        "schema": 1,
        "recipe": recipe.model_dump(mode="json"),
        "update_norm": norm,
        "rounding_share": lost / norm if norm else None,
        "tensors": tensors,
        "warnings": [*warnings, *_remarks(tensors)],
        "remarks": [*remarks],
        "versions": {name: metadata.version(name) for name in PACKAGES},
        "seconds": round(seconds, 3),
        "alignment": alignment,
    }


def _remarks(tensors: Mapping[str, Facts]) -> list[str]:
    """Return warnings that follow from the facts of the tensors."""
    found = []
    unusual = [name for name, facts in tensors.items() if facts.get("t_unusual")]
    if unusual:
        found.append(
            f"Model Stock's t is outside of [0, 1] in {len(unusual)} tensors: {_named(unusual)}"
        )
    for text in sorted({facts["warning"] for facts in tensors.values() if "warning" in facts}):
        names = [name for name, facts in tensors.items() if facts.get("warning") == text]
        found.append(f"{text}, in {len(names)} tensors: {_named(names)}")
    shares = {name: facts.get("outside_share", 0) for name, facts in tensors.items()}
    outside = {name: share for name, share in shares.items() if share > _ROUNDING}
    if outside:
        worst = max(outside, key=lambda name: outside[name])
        found.append(
            f"{len(outside)} matrices are rank deficient: the update puts energy outside of the span of "
            f"the experts (up to {outside[worst]:.1%} in {worst}); consider null_space: drop"
        )
    return found


def _named(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
