"""mergekit's YAML for the methods both tools have: read as a recipe, and written beside a merge.

Task Arithmetic, TIES and Model Stock of whole models with one number for each parameter. Their meanings
are those of mergekit 0.1.5: `normalize` divides by the weights (in TIES, by those that agree), `lambda`
scales the update, `dtype` is the precision of the arithmetic (here always float32) and, without
`out_dtype`, of the result. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from wildmerge.errors import Refusal
from wildmerge.study.recipe import Recipe

METHODS = {  # mergekit's method -> the parameters of the whole merge and of each model
    "task_arithmetic": ({"normalize", "lambda", "weight", "int8_mask"}, {"weight"}),
    "ties": ({"normalize", "lambda", "weight", "density", "int8_mask"}, {"weight", "density"}),
    "model_stock": ({"filter_wise"}, set()),
}
KEYS = {
    "merge_method",
    "base_model",
    "models",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
}
NORM_FLOOR = 1e-6
"""Smallest product of norms by which mergekit's Model Stock divides."""

Content = Mapping[str, Any]


def is_mergekit(content: Any) -> bool:
    """Return whether a configuration is mergekit's, not a recipe."""
    return isinstance(content, Mapping) and "merge_method" in content


def to_recipe(content: Content, where: str) -> Recipe:
    """Return the recipe that merges as mergekit would with this configuration.

    Args:
        content: the configuration as read from YAML.
        where: its file, for messages.

    Raises:
        Refusal: one line that names the key that is not supported or not valid.
    """
    method = str(content["merge_method"])
    if method not in METHODS:
        raise Refusal(
            f"{where}: merge_method: '{method}' is not supported; known: {', '.join(METHODS)}"
        )  # a name that is near, as ties is to dare_ties, is another method
    _refuse_others(content, KEYS, where, "")
    if content.get("tokenizer_source", "base") != "base":
        raise Refusal(f"{where}: tokenizer_source: only 'base' is supported; remove it")
    whole, of_model = METHODS[method]
    shared = content.get("parameters") or {}
    _refuse_others(shared, whole, where, "parameters.")
    base = _reference(content.get("base_model"), where, "base_model")
    experts, given = [], []
    models = content.get("models") or []
    if not isinstance(models, list):
        raise Refusal(f"{where}: models: expected a list, found {models!r}")
    for index, entry in enumerate(models):
        place = f"models[{index}]"
        if not isinstance(entry, Mapping):
            raise Refusal(f"{where}: {place}: expected keys and values, found {entry!r}")
        _refuse_others(entry, {"model", "parameters"}, where, f"{place}.")
        model = _reference(entry.get("model"), where, f"{place}.model")
        if model == base:
            continue  # mergekit, too, leaves the base out of what is merged
        own = entry.get("parameters") or {}
        _refuse_others(own, of_model, where, f"{place}.parameters.")
        experts.append(model)
        given.append({**shared, **own})
    parameters = _parameters(method, shared, given, where)
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype not in (None, "float32", "bfloat16", "float16"):  # may be a list, which has no hash
        raise Refusal(f"{where}: dtype: {dtype!r}; choose float32, bfloat16 or float16")
    return Recipe(
        base=base, experts=tuple(experts), method=method, parameters=parameters, dtype=dtype
    )


def from_recipe(recipe: Recipe, dtype: str) -> str | None:
    """Return the equivalent mergekit configuration as YAML, or None where there is none.

    Args:
        recipe: of a merge, with every hyperparameter written out.
        dtype: of the merged weights.
    """
    if recipe.method not in METHODS or len(recipe.experts) < 2 or recipe.untie:
        return None
    given = recipe.parameters
    weights = given.get("weights") or [1.0] * len(recipe.experts)
    own: list[dict[str, float]] = [{} for _ in recipe.experts]
    shared: dict[str, Any]
    if recipe.method == "model_stock":
        if given["norm_floor"] not in {0.0, NORM_FLOOR}:
            return None
        shared = {"filter_wise": given["filter_wise"]}
    else:
        own = [{"weight": float(weight)} for weight in weights]
        divisor = given.get("divisor") or {"mean": "agreeing", "sum": "sum"}[given["scale"]]
        factor = given["lambda"] / (sum(weights) if divisor == "n" else 1)
        shared = {"normalize": divisor == "agreeing", "lambda": float(factor)}
        if recipe.method == "ties":
            shared["density"] = float(given["density"])
    models = [
        {"model": expert, **({"parameters": parameters} if parameters else {})}
        for expert, parameters in zip(recipe.experts, own, strict=True)
    ]
    config = {
        "merge_method": recipe.method,
        "base_model": recipe.base,
        "models": models,
        "parameters": shared,
        "dtype": "float32",
        "out_dtype": dtype,
    }
    remark = "# the same merge for mergekit 0.1.5"
    if given.get("norm_floor") == 0.0:
        remark += ", which returns tensors that hardly moved (norms below 1e-3) to the base"
    return f"{remark}\n{yaml.safe_dump(config, sort_keys=False)}"


def _parameters(
    method: str, shared: Content, given: list[dict[str, Any]], where: str
) -> dict[str, Any]:
    """Return our hyperparameters for mergekit's, those of the whole and those of each model."""
    if method == "model_stock":
        filter_wise = shared.get("filter_wise", False)
        return {"filter_wise": filter_wise, "norm_floor": NORM_FLOOR}
    factor = _number(shared.get("lambda", 1.0), where, "parameters.lambda")
    weights = [_of_model(g, "weight", i, where) for i, g in enumerate(given)]
    normalize = shared.get("normalize", method == "ties")
    if not isinstance(normalize, bool):
        raise Refusal(f"{where}: parameters.normalize: {normalize!r}; give true or false")
    common = {"lambda": factor, "weights": weights}
    if method == "task_arithmetic":
        return {"scale": "mean" if normalize else "sum", **common}
    densities = {_of_model(g, "density", i, where, 1.0) for i, g in enumerate(given)}
    if len(densities) > 1:
        raise Refusal(f"{where}: density: one number for all models is supported; make them equal")
    divisor = "agreeing" if normalize else "sum"
    return {"divisor": divisor, "density": max(densities, default=1.0), **common}


def _of_model(
    given: Content, name: str, index: int, where: str, default: float | None = None
) -> float:
    value = given.get(name, default)
    place = f"{name} of expert {index + 1}"
    if value is None:
        raise Refusal(f"{where}: {place}: is missing; mergekit needs a number")
    number = _number(value, where, place)
    if number <= 0:
        raise Refusal(f"{where}: {place}: {value!r} is not supported; give a number above 0")
    return number


def _number(value: Any, where: str, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal(
            f"{where}: {place}: only one number is supported (no list over layers, no filter), "
            f"found {value!r}"
        )
    return float(value)


def _reference(value: Any, where: str, place: str) -> str:
    """Return a checkpoint's folder or hub id."""
    if not isinstance(value, str) or not value:
        raise Refusal(f"{where}: {place}: expected a folder or hub id, found {value!r}")
    if "+" in value:
        raise Refusal(f"{where}: {place}: '{value}': give the adapter itself as the model")
    return value


def _refuse_others(content: Any, known: set[str], where: str, place: str) -> None:
    if not isinstance(content, Mapping):
        raise Refusal(f"{where}: {place.rstrip('.')}: expected keys and values, found {content!r}")
    for key in content:
        if key not in known:
            raise Refusal(
                f"{where}: {place}{key}: not supported here; known: {', '.join(sorted(known)) or 'none'}"
            )
