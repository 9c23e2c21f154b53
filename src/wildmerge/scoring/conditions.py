"""Under what conditions answers were computed, as far as their files say it.

Models are compared under equal conditions only. One model under two conditions is scored again; its
answers are compared if the same was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Conditions = Mapping[str, str]
"""By name, see `ASKED` and `COMPUTED`; a name is absent where the files do not say it."""

ASKED = ("num_fewshot", "limit", "chat_template", "task_version", "documents", "lm_eval")
"""What decides the prompts and the items."""
COMPUTED = ("backend", "dtype", "transformers", "vllm")
"""What decides how a model's answers to them are computed."""
NEEDED = ("backend", "dtype", "lm_eval")
"""Without these, nobody knows whether two models can be compared."""
STORED = "auto"
"""The dtype that says: as the weights are stored, so it may be any."""

_HF = ("hf-auto", "huggingface")  # lm-eval's other names of hf
_UNKNOWN = "CUSTOM"  # a model given as an object


def of_result(content: Mapping[str, Any]) -> Conditions:
    """Return the conditions of one of our result files.

    Args:
        content: of the file.
    """
    settings, versions = (content.get(key) or {} for key in ("settings", "versions"))
    known = {**settings, **versions, "documents": content.get("documents")}
    known["task_version"] = versions.get("task")
    return _kept(known)


def of_lm_eval(content: Mapping[str, Any], task: str) -> Conditions:
    """Return the conditions of a task in one of lm-eval's results files.

    Args:
        content: of the file.
        task: its name.
    """
    config = content.get("config") or {}
    backend = content.get("model_source")
    known = {
        "num_fewshot": (content.get("n-shot") or {}).get(task),
        "task_version": (content.get("versions") or {}).get(task),
        "lm_eval": content.get("lm_eval_version"),
        "transformers": content.get("transformers_version"),
        "backend": None if backend == _UNKNOWN else "hf" if backend in _HF else backend,
        "dtype": str(config.get("model_dtype") or "").removeprefix("torch.") or None,
    }
    if "chat_template" in content:
        known["chat_template"] = bool(content["chat_template"])
    return _kept(known)


def as_lm_eval(tasks: Mapping[str, Conditions]) -> dict[str, Any]:
    """Return conditions as lm-eval's results files say them, see `of_lm_eval`.

    Args:
        tasks: by task, all scored by one backend.
    """
    every = {name: value for conditions in tasks.values() for name, value in conditions.items()}
    shots = {name: c["num_fewshot"] for name, c in tasks.items() if "num_fewshot" in c}
    return {
        "model_source": every.get("backend"),
        "config": {"model_dtype": every.get("dtype")},
        "lm_eval_version": every.get("lm_eval"),
        "transformers_version": every.get("transformers"),
        "n-shot": {name: int(number) for name, number in shots.items()},
        "versions": {n: c["task_version"] for n, c in tasks.items() if "task_version" in c},
    }


def unlike(one: Conditions, other: Conditions) -> list[str]:
    """Return the names of conditions that both say, and say differently."""
    return [
        name
        for name in (*ASKED, *COMPUTED)
        if name in one and name in other and one[name] != other[name]
    ]


def not_said(conditions: Conditions) -> list[str]:
    """Return which of the needed conditions are not known."""
    return [name for name in NEEDED if conditions.get(name, STORED) == STORED]


def again(first: Conditions, second: Conditions) -> str:
    """Return how a model was scored for the second time: "by hf in bfloat16"."""
    words = {
        "backend": "by {}",
        "dtype": "in {}",
        "transformers": "with transformers {}",
        "vllm": "with vllm {}",
    }
    said = [words[name].format(second[name]) for name in unlike(first, second) if name in words]
    return " ".join(said).replace(f"in {STORED}", "in its stored dtype") or "with the same settings"


def _kept(known: Mapping[str, Any]) -> Conditions:
    return {name: str(known[name]) for name in (*ASKED, *COMPUTED) if known.get(name) is not None}
