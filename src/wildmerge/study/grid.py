"""The merge methods of a study; a list of values for a hyperparameter makes one variant of each."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from wildmerge.errors import Refusal
from wildmerge.methods import catalogue as methods
from wildmerge.methods.declaration import Preset


@dataclass(frozen=True)
class Variant:
    """A method at one point of its grid: `label` is what tables and figures call it, `sizes` its own."""

    method: methods.Method
    parameters: dict[str, Any]
    label: str
    sizes: tuple[int, ...]
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of experts by name; 1 for those that are not named."""


class MethodGrid(BaseModel):
    """A merge method with hyperparameters; a list of values makes one variant of each."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = Field(description="a name that `wildmerge methods` prints")
    sizes: list[Annotated[int, Field(ge=2)]] | None = Field(
        None, min_length=1, description="merge sizes of these variants only"
    )

    @model_validator(mode="before")
    @classmethod
    def _bare_name(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @field_validator("sizes")
    @classmethod
    def _sizes_once(cls, sizes: list[int] | None) -> list[int] | None:
        if sizes and len(set(sizes)) < len(sizes):
            raise ValueError("a size stands there twice; remove one")
        return sizes

    def variants(self, preset: Preset, folders: Sequence[Path]) -> list[Variant]:
        """Return one variant for each point of the grid, in the order written.

        Args:
            preset: the study's.
            folders: where the study's own methods lie.

        Raises:
            Refusal: the method or one of its hyperparameters is not known or not valid.
        """
        method = methods.get(self.method, folders)
        given = dict(self.model_extra or {})
        weights = self._weights(given.pop("weights", None), method)
        axes = [value if isinstance(value, list) else [value] for value in given.values()]
        default = method.complete({}, preset)
        found = []
        for point in itertools.product(*axes):
            complete = method.complete(dict(zip(given, point, strict=True)), preset)
            changed = [f"{k}={_short(v)}" for k, v in complete.items() if v != default[k]]
            if weights:
                named = ",".join(f"{name}:{weight:g}" for name, weight in weights.items())
                changed.append(f"weights={named}")
            label = " ".join([self.method, *changed])
            found.append(Variant(method, complete, label, tuple(self.sizes or ()), weights))
        return found

    def _weights(self, weights: Any, method: methods.Method) -> dict[str, float]:
        """Return the experts' weights by name: a list has no order that all subsets share."""
        if weights is None:
            return {}
        if not isinstance(weights, dict) or not weights:
            raise Refusal("weights: give them by the experts' names, as {math: 2, code: 1}")
        checked = method.complete({"weights": list(weights.values())})["weights"]
        return dict(zip(map(str, weights), checked, strict=True))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
