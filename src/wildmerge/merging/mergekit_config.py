"""mergekit's YAML for the methods both tools have: read as a recipe, and written beside a merge.

Whole models with one number for each parameter. What the methods and their parameters mean stands in
`wildmerge.merging.mergekit_methods`; `dtype` is the precision of the arithmetic (here always float32)
and, without `out_dtype`, of the result. Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from wildmerge.errors import Refusal
from wildmerge.merging.mergekit_methods import READ, Asked
from wildmerge.merging.mergekit_saying import say
from wildmerge.study.recipe import Recipe

KEYS = {
    "merge_method",
    "base_model",
    "models",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
}

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
    if method not in READ:
        raise Refusal(
            f"{where}: merge_method: '{method}' is not supported; known: {', '.join(READ)}"
        )  # a name that is near, as ties is to dare_ties, is another method
    _refuse_others(content, KEYS, where, "")
    if content.get("tokenizer_source", "base") != "base":
        raise Refusal(f"{where}: tokenizer_source: only 'base' is supported; remove it")
    base, experts, ours, parameters = READ[method].read(_asked(method, content, where))
    dtype = content.get("out_dtype") or content.get("dtype")
    if dtype not in (None, "float32", "bfloat16", "float16"):  # may be a list, which has no hash
        raise Refusal(f"{where}: dtype: {dtype!r}; choose float32, bfloat16 or float16")
    return Recipe(
        base=base, experts=tuple(experts), method=ours, parameters=parameters, dtype=dtype
    )


def from_recipe(recipe: Recipe, dtype: str) -> str | None:
    """Return the equivalent mergekit configuration as YAML, or None where there is none.

    Args:
        recipe: of a merge, with every hyperparameter written out.
        dtype: of the merged weights.
    """
    said = None if len(recipe.experts) < 2 or recipe.untie else say(recipe)
    if said is None:
        return None
    own = said.own or [{} for _ in said.models]
    models = [
        {"model": model, **({"parameters": parameters} if parameters else {})}
        for model, parameters in zip(said.models, own, strict=True)
    ]
    config = {
        "merge_method": said.method,
        **({"base_model": said.base} if said.base else {}),
        "models": models,
        **({"parameters": said.shared} if said.shared else {}),
        "dtype": "float32",
        "out_dtype": dtype,
    }
    remark = f"# the same merge for mergekit 0.1.5{said.remark}"
    return f"{remark}\n{yaml.safe_dump(config, sort_keys=False)}"


def _asked(method: str, content: Content, where: str) -> Asked:
    """Return a configuration with its models and parameters looked at, key by key."""
    words = READ[method]
    shared = content.get("parameters") or {}
    _refuse_others(shared, words.whole, where, "parameters.")
    base = None
    if words.needs_base or content.get("base_model") is not None:
        base = _reference(content.get("base_model"), where, "base_model")
    entries = content.get("models") or []
    if not isinstance(entries, list):
        raise Refusal(f"{where}: models: expected a list, found {entries!r}")
    if not entries:
        raise Refusal(f"{where}: models: expected models to merge, found none")
    models, given = [], []
    for index, entry in enumerate(entries):
        place = f"models[{index}]"
        if not isinstance(entry, Mapping):
            raise Refusal(f"{where}: {place}: expected keys and values, found {entry!r}")
        _refuse_others(entry, {"model", "parameters"}, where, f"{place}.")
        models.append(_reference(entry.get("model"), where, f"{place}.model"))
        own = entry.get("parameters") or {}
        _refuse_others(own, words.of_model, where, f"{place}.parameters.")
        given.append({**shared, **own})
    return Asked(where, method, base, models, given, shared)


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
