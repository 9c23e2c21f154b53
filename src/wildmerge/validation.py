"""Reading YAML and checking it against a pydantic model, each mistake answered in one line.

A message names the file, the key and the remedy: `study.yaml: methods[2]: unknown method 'tie'; did you
mean 'ties'?`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from wildmerge.errors import Refusal, unknown

AnyModel = TypeVar("AnyModel", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Reads YAML and refuses a key that stands twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"the key {key.value} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep)


def read_yaml(path: str | Path) -> Any:
    """Read one YAML document; raises Refusal for a missing file or broken YAML."""
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}; give the path of a YAML file") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise Refusal(f"{where}: not valid YAML: {getattr(error, 'problem', error)}") from None
    except (ValueError, RecursionError) as error:  # no UTF-8, a date that is none, endless nesting
        raise Refusal(f"{path}: not valid YAML: {error}") from None


def parse(model: type[AnyModel], value: Any, where: str) -> AnyModel:
    """Validate `value`; raises Refusal with the first problem as `where: key: what to do`."""
    if not isinstance(value, dict):
        found = "nothing" if value is None else type(value).__name__
        raise Refusal(f"{where}: expected keys and values, found {found}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Refusal(f"{where}: {first_problem(error, model)}") from None


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Word the first of the problems that pydantic found in data meant for `model`."""
    problem = error.errors()[0]
    place = _place(problem["loc"])
    kind = problem["type"]
    if kind == "extra_forbidden":
        message = unknown("key", str(problem["loc"][-1]), _keys_at(model, problem["loc"][:-1]))
        place = _place(problem["loc"][:-1])
    elif kind == "value_error":
        message = str(problem["ctx"]["error"])
    elif kind == "missing":
        message = "is missing; add it"
    elif kind == "string_pattern_mismatch":
        words = "letters a to z, digits, '.', '_' and '-', beginning with a letter or a digit"
        message = f"{_shown(problem['input'])} is no name; use {words}"
    else:
        text = problem["msg"]
        message = f"{text[:1].lower()}{text[1:]}, found {_shown(problem['input'])}"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return (f"{place}: {message}" if place else message) + more


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _keys_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that the model at `location` knows, for a suggestion."""
    for step in location:
        if step in model.model_fields:
            inside = _models_in(model.model_fields[str(step)].annotation)
            model = inside[0] if inside else model
    return [field.alias or name for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the pydantic models that an annotation such as `dict[str, Base] | None` mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _place(location: tuple[int | str, ...]) -> str:
    text = ""
    for step in location:
        if step == "[key]":  # the name before it
            continue
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text
