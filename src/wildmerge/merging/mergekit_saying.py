"""Our merges in mergekit's words; what `wildmerge.merging.mergekit_methods` reads, the other way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wildmerge.merging.mergekit_methods import (
    NORM_FLOOR,
    NUSLERP_LINEAR,
    PATTERNS,
    SLERP_LINEAR,
    WEIGHT_FLOOR,
)
from wildmerge.study.recipe import Recipe

Own = list[dict[str, float]]


@dataclass(frozen=True)
class Said:
    """A method of mergekit with its models (a base among them only if it is merged) and parameters."""

    method: str
    base: str | None
    models: tuple[str, ...]
    own: Own | None = None
    """Parameters of each model, if any."""
    shared: dict[str, Any] = field(default_factory=dict)
    remark: str = ""


def say(recipe: Recipe) -> Said | None:
    """Return how mergekit says the same merge, or None where it has no words for it.

    Args:
        recipe: of a merge of several experts, with every hyperparameter written out.
    """
    found = SAY[recipe.method](recipe) if recipe.method in SAY else None
    if found and found.method in _WITHOUT_BASE and found.base in found.models:
        return None  # mergekit would leave it out
    return found


def _pattern(recipe: Recipe) -> Said | None:
    given, pattern = recipe.parameters, PATTERNS[str(recipe.method)]
    if recipe.method == "task_arithmetic" and recipe.base in recipe.experts:
        return _linear(recipe)
    weights = _weights(recipe)
    divisor = given.get("divisor") or {"mean": "agreeing", "sum": "sum"}[given["scale"]]
    factor = given["lambda"] / (sum(weights) if divisor == "n" else 1)
    shared = {"normalize": divisor == "agreeing", "lambda": float(factor)}
    shared |= {name: float(given[name]) for name in pattern.of_model}
    if pattern.rescale is not None:
        if given["rescale"] not in {"l1", "none"}:
            return None
        shared["rescale"] = given["rescale"] == "l1"
    drawn = "seed" in given and given["density"] < 1
    remark = ", but for what it keeps at random" if drawn else ""
    return Said(str(recipe.method), recipe.base, recipe.experts, _own(weights), shared, remark)


def _linear(recipe: Recipe) -> Said | None:
    given, weights = recipe.parameters, _weights(recipe)
    normalize = given["scale"] == "mean"
    if given["lambda"] != 1 or not (normalize or math.isclose(sum(weights), 1, rel_tol=1e-9)):
        return None
    shared = {"normalize": normalize}
    return Said("linear", recipe.base, recipe.experts, _own(weights), shared)


def _model_stock(recipe: Recipe) -> Said | None:
    given = recipe.parameters
    if given["norm_floor"] not in {0.0, NORM_FLOOR}:
        return None
    remark = ", which returns tensors that hardly moved (norms below 1e-3) to the base"
    shared = {"filter_wise": given["filter_wise"]}
    remark = "" if given["norm_floor"] else remark
    return Said("model_stock", recipe.base, recipe.experts, None, shared, remark)


def _sce(recipe: Recipe) -> Said | None:
    given = recipe.parameters
    same = {"weight_floor": WEIGHT_FLOOR, "lambda": 1.0, "select": "update"}
    if any(given[name] != value for name, value in same.items()):
        return None
    shared = {"select_topk": given["select_topk"]}
    return Said("sce", recipe.base, recipe.experts, None, shared)


def _slerp(recipe: Recipe) -> Said | None:
    given, t = recipe.parameters, float(recipe.parameters["t"])
    on_weights = given["space"] == "weights"
    if on_weights and given["linear_above"] == SLERP_LINEAR:
        first, second = recipe.experts
        return Said("slerp", first, (second,), None, {"t": t})
    if given["linear_above"] != NUSLERP_LINEAR or not 0 < t < 1:
        return None
    return Said("nuslerp", None if on_weights else recipe.base, recipe.experts, _own([1 - t, t]))


def _multislerp(recipe: Recipe) -> Said | None:
    given = recipe.parameters
    base = recipe.base if given["space"] == "task_vectors" else None
    shared = {"normalize_weights": given["normalize_weights"]}
    return Said("multislerp", base, recipe.experts, _own(_weights(recipe)), shared)


def _karcher(recipe: Recipe) -> Said | None:
    given = recipe.parameters
    if len(set(_weights(recipe))) > 1:
        return None
    base = recipe.base if recipe.base in recipe.experts else None
    shared = {"max_iter": given["max_iter"], "tol": given["tol"]}
    return Said("karcher", base, recipe.experts, None, shared)


def _weights(recipe: Recipe) -> list[float]:
    return recipe.parameters.get("weights") or [1.0] * len(recipe.experts)


def _own(weights: list[float]) -> Own:
    return [{"weight": float(weight)} for weight in weights]


SAY: dict[str, Callable[[Recipe], Said | None]] = {
    **dict.fromkeys(PATTERNS, _pattern),
    "model_stock": _model_stock,
    "sce": _sce,
    "slerp": _slerp,
    "multislerp": _multislerp,
    "karcher": _karcher,
}
_WITHOUT_BASE = {*PATTERNS, "model_stock", "sce", "nuslerp", "multislerp"}
