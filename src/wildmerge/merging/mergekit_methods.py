"""mergekit's merge methods in our words, and ours in its: `READ` and `said`.

The meanings are those of mergekit 0.1.5. Methods that it calls generalized task arithmetic have one
pattern: `normalize` divides by the weights (where a sign is elected, by those that agree), `rescale`
gives what is kept the sum of magnitudes that was there, `lambda` scales the update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from wildmerge.errors import Refusal

NORM_FLOOR = 1e-6
"""Smallest product of norms by which mergekit's Model Stock divides."""
WEIGHT_FLOOR = 1e-6
"""Sum of mean squares below which mergekit's SCE weighs all experts the same."""
SLERP_LINEAR, NUSLERP_LINEAR = 0.9995, 1 - 1e-15
"""Cosines above which mergekit's slerp and nuslerp are linear."""


@dataclass(frozen=True)
class Asked:
    """A configuration: its models in order, and their parameters over those of the whole merge."""

    where: str
    method: str
    base: str | None
    models: list[str]
    own: Sequence[Mapping[str, Any]]
    shared: Mapping[str, Any]

    @property
    def origin(self) -> str:
        """The base; where none is named, the first model."""
        return self.base or self.models[0]

    def without_base(self) -> Asked:
        """Leave the base out of the models, as mergekit does for most methods."""
        kept = [i for i, model in enumerate(self.models) if model != self.base]
        models, own = [self.models[i] for i in kept], [self.own[i] for i in kept]
        return replace(self, models=models, own=own)

    def with_base(self) -> Asked:
        """Make a base that is named one of the models, with the parameters of the whole merge."""
        if self.base is None or self.base in self.models:
            return self
        return replace(self, models=[self.base, *self.models], own=[self.shared, *self.own])

    def pair(self, count: int = 2) -> Asked:
        """Refuse another number of models."""
        if len(self.models) != count:
            what = "two models" if count == 2 else "one model beside base_model"
            raise self.refusal("models", f"{self.method} merges {what}, found {len(self.models)}")
        return self

    def numbers(self, name: str, default: float | None = None, zero: bool = False) -> list[float]:
        """Return a parameter of every model: above 0, or 0 where that is allowed."""
        found = []
        for index, own in enumerate(self.own):
            value, place = own.get(name, default), f"{name} of expert {index + 1}"
            if value is None:
                raise self.refusal(place, "is missing; mergekit needs a number")
            number = self._number(value, place)
            if number < 0 or (number == 0 and not zero):
                raise self.refusal(place, f"{value!r} is not supported; give a number above 0")
            found.append(number)
        return found

    def equal(self, name: str, default: float) -> float:
        """Return a parameter that must be the same for all models."""
        found = set(self.numbers(name, default, zero=name == "gamma"))
        if len(found) > 1:
            raise self.refusal(name, "one number for all models is supported; make them equal")
        return max(found, default=default)

    def number(self, name: str, default: float | None) -> float:
        """Return a parameter of the whole merge; None as default: it must be given."""
        value = self.shared.get(name, default)
        if value is None:
            raise self.refusal(f"parameters.{name}", "is missing; mergekit needs a number")
        return self._number(value, f"parameters.{name}")

    def flag(self, name: str, default: bool) -> bool:
        """Return a parameter of the whole merge that is true or false."""
        value = self.shared.get(name, default)
        if not isinstance(value, bool):
            raise self.refusal(f"parameters.{name}", f"{value!r}; give true or false")
        return value

    def refusal(self, place: str, what: str) -> Refusal:
        """Return a refusal that names the file and the key."""
        return Refusal(f"{self.where}: {place}: {what}")

    def _number(self, value: Any, place: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.refusal(
                place,
                f"only one number is supported (no list over layers, no filter), found {value!r}",
            )
        return float(value)


Meant = tuple[str, list[str], str, dict[str, Any]]
"""Base, experts, method and hyperparameters of the recipe that a configuration means."""


@dataclass(frozen=True)
class Words:
    """The parameters of a method of mergekit, and what it means here."""

    read: Callable[[Asked], Meant]
    whole: set[str]
    of_model: set[str] = field(default_factory=set)
    needs_base: bool = True


@dataclass(frozen=True)
class Pattern:
    """Defaults of a generalized task arithmetic; `rescale` is None where it means nothing."""

    normalize: bool
    elects: bool
    of_model: Mapping[str, float] = field(default_factory=dict)
    rescale: bool | None = None

    @property
    def words(self) -> Words:
        """Return its parameters in mergekit's words."""
        own = {"weight", *self.of_model}
        rescale = set() if self.rescale is None else {"rescale"}
        return Words(_pattern, {"normalize", "lambda", "int8_mask", *own, *rescale}, own)


_DARE = {"density": 1.0}
_DELLA = {"density": 1.0, "epsilon": 0.15}
_CRUMBS = {"density": 1.0, "gamma": 0.01}
PATTERNS = {
    "task_arithmetic": Pattern(normalize=False, elects=False),
    "ties": Pattern(normalize=True, elects=True, of_model={"density": 1.0}),
    "dare_linear": Pattern(normalize=False, elects=False, of_model=_DARE, rescale=True),
    "dare_ties": Pattern(normalize=False, elects=True, of_model=_DARE, rescale=True),
    "della_linear": Pattern(normalize=False, elects=False, of_model=_DELLA, rescale=True),
    "della": Pattern(normalize=True, elects=True, of_model=_DELLA, rescale=True),
    "breadcrumbs": Pattern(normalize=False, elects=False, of_model=_CRUMBS, rescale=False),
    "breadcrumbs_ties": Pattern(normalize=False, elects=True, of_model=_CRUMBS, rescale=False),
}


def _pattern(asked: Asked) -> Meant:
    pattern, asked = PATTERNS[asked.method], asked.without_base()
    normalize = asked.flag("normalize", pattern.normalize)
    parameters: dict[str, Any] = {
        "lambda": asked.number("lambda", 1.0),
        "weights": asked.numbers("weight"),
    }
    if pattern.elects:
        parameters["divisor"] = "agreeing" if normalize else "sum"
    else:
        parameters["scale"] = "mean" if normalize else "sum"
    parameters |= {name: asked.equal(name, value) for name, value in pattern.of_model.items()}
    if pattern.rescale is not None:
        parameters["rescale"] = "l1" if asked.flag("rescale", pattern.rescale) else "none"
    return asked.origin, asked.models, asked.method, parameters


def _model_stock(asked: Asked) -> Meant:
    parameters = {"filter_wise": asked.shared.get("filter_wise", False), "norm_floor": NORM_FLOOR}
    return asked.origin, asked.without_base().models, "model_stock", parameters


def _sce(asked: Asked) -> Meant:
    parameters = {"select_topk": asked.number("select_topk", 1.0), "weight_floor": WEIGHT_FLOOR}
    return asked.origin, asked.without_base().models, "sce", parameters


def _linear(asked: Asked) -> Meant:
    """The mean of all models; a base is one of them, and without one the first is the base."""
    asked = asked.with_base()
    weights = asked.numbers("weight")
    normalize = asked.flag("normalize", True)
    if not normalize and not math.isclose(sum(weights), 1, rel_tol=1e-9):
        raise asked.refusal(
            "parameters.normalize", "false scales the base, too, unless the weights sum to 1"
        )
    parameters = {"scale": "mean" if normalize else "sum", "weights": weights}
    return asked.origin, asked.models, "task_arithmetic", parameters


def _slerp(asked: Asked) -> Meant:
    (other,) = asked.without_base().pair(1).models
    return asked.origin, [asked.origin, other], "slerp", {"t": asked.number("t", None)}


def _nuslerp(asked: Asked) -> Meant:
    if not asked.flag("nuslerp_flatten", True):
        raise asked.refusal("parameters.nuslerp_flatten", "false is not supported; remove it")
    asked = asked.without_base().pair()
    first, second = asked.numbers("weight")
    parameters = {"t": second / (first + second), "linear_above": NUSLERP_LINEAR}
    return *_space(asked, parameters), "slerp", parameters


def _multislerp(asked: Asked) -> Meant:
    asked = asked.without_base()
    parameters: dict[str, Any] = {
        "weights": asked.numbers("weight"),
        "normalize_weights": asked.flag("normalize_weights", True),
    }
    return *_space(asked, parameters), "multislerp", parameters


def _space(asked: Asked, parameters: dict[str, Any]) -> tuple[str, list[str]]:
    """Merge task vectors if there is a base; else weights, and the first model is the base."""
    parameters["space"] = "task_vectors" if asked.base else "weights"
    return asked.origin, asked.models


def _karcher(asked: Asked) -> Meant:
    asked = asked.with_base()
    steps = int(asked.number("max_iter", 10))
    parameters = {"max_iter": steps, "tol": asked.number("tol", 1e-5)}
    return asked.origin, asked.models, "karcher", parameters


READ = {
    **{name: pattern.words for name, pattern in PATTERNS.items()},
    "model_stock": Words(_model_stock, {"filter_wise"}),
    "sce": Words(_sce, {"select_topk", "int8_mask"}),
    "linear": Words(_linear, {"weight", "normalize"}, {"weight"}, needs_base=False),
    "slerp": Words(_slerp, {"t"}),
    "nuslerp": Words(_nuslerp, {"weight", "nuslerp_flatten"}, {"weight"}, needs_base=False),
    "multislerp": Words(_multislerp, {"weight", "normalize_weights"}, {"weight"}, needs_base=False),
    "karcher": Words(_karcher, {"max_iter", "tol"}, needs_base=False),
}
"""mergekit's method -> its parameters and meaning."""
