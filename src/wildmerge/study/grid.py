"""The merge methods of a study; a list of values for a hyperparameter makes one variant of each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
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
        given = self.model_extra or {}
        if given.get("weights"):  # subsets differ in members and are ordered by content
            raise Refusal("weights: not supported in studies; merge such a recipe by itself")
        axes = [
            value if isinstance(value, list) and key != "weights" else [value]
            for key, value in given.items()
        ]
        default = method.complete({}, preset)
        found = []
        for point in itertools.product(*axes):
            complete = method.complete(dict(zip(given, point, strict=True)), preset)
            changed = [f"{k}={_short(v)}" for k, v in complete.items() if v != default[k]]
            label = " ".join([self.method, *changed])
            found.append(Variant(method, complete, label, tuple(self.sizes or ())))
        return found


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
