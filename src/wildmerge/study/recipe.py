"""What one model of a study is made of, and the id that follows from it.

A recipe names a base, experts, a method with every hyperparameter written out, and the output's dtype.
Its id is a hash of that content: two studies that need the same model share its files, and a change of
one hyperparameter is a new recipe. Pure Python: importing this module imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

NUMERICS = 2
"""Version of the published methods' numerics; raise it when their results change beyond rounding."""

OutputDtype = Literal["float32", "bfloat16", "float16"]


class Recipe(BaseModel):
    """A model to make: the base itself (no experts), one expert as it is, or a merge.

    `base` and `experts` are folders or hub ids with an optional revision (`org/name@revision`).
    `method` is None for the base and for a single expert, which are evaluated as published.
    `untie` gives a base whose output head is its embedding a head of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base: str
    experts: tuple[str, ...] = ()
    method: str | None = None
    parameters: dict[str, Any] = {}
    null_space: Literal["keep", "drop"] = "keep"
    dtype: OutputDtype | None = None
    untie: bool = False


def recipe_id(
    recipe: Recipe,
    identities: Mapping[str, str],
    method_digest: str | None = None,
    *,
    ordered: bool = False,
) -> str:
    """Return the 16 hex digits under which everything made from this recipe is stored.

    Args:
        recipe: with every hyperparameter written out.
        identities: content identity of each checkpoint (`repo@commit`, or a digest of the files).
        method_digest: hash of the code of a method that is not one of the published ones.
        ordered: the method's result depends on the order of the experts.
    """
    content: dict[str, Any] = {
        "schema": 1,
        "numerics": NUMERICS,
        "base": identities[recipe.base],
        "experts": sorted(identities[expert] for expert in recipe.experts),
    }
    if recipe.method is not None:
        content |= recipe.model_dump(include={"method", "parameters", "null_space", "dtype"})
        # order-free unless the experts carry weights of their own, or the method goes by their order
        if ordered or recipe.parameters.get("weights"):
            content["experts"] = [identities[expert] for expert in recipe.experts]
    if recipe.untie:
        content["untie"] = True
    if method_digest is not None:
        content["code"] = method_digest
    return short_hash(content)


def short_hash(content: Any) -> str:
    """Return the first 16 hex digits of the SHA-256 of `content` as canonical JSON."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def draw_subsets(names: Sequence[str], size: int, count: int, seed: str) -> list[tuple[str, ...]]:
    """Draw `count` different subsets of `size` names, uniformly, or all of them where fewer exist.

    The draw depends on `seed` and `size` only, and asking for more subsets keeps those already drawn.
    Each subset lists its members in the order of `names`.
    """
    generator = random.Random(f"{seed}/{size}")
    wanted = min(count, math.comb(len(names), size))
    drawn: dict[tuple[str, ...], None] = {}
    while len(drawn) < wanted:
        indices = sorted(generator.sample(range(len(names)), size))
        drawn.setdefault(tuple(names[i] for i in indices))
    return list(drawn)
