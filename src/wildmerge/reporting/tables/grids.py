"""Hyperparameter grids in a study: variants of one method that differ in one number only.

A grid may be made at fewer sizes than its method's other variants; its points are then read in the
figure of the grid, not as curves over the number of experts.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

SMALLEST = 3  # two points are a comparison, three make a curve


class Grid(NamedTuple):
    """A method, the hyperparameter that varies, and its value in each variant."""

    method: str
    parameter: str
    values: dict[str, float]


def find_grids(models: pd.DataFrame) -> list[Grid]:
    """Find the grids of a study.

    Args:
        models: the study's models, with columns kind, method, variant and parameters (JSON).

    Returns:
        One grid for each method and hyperparameter with at least three variants that agree in all
        other hyperparameters (of several such sets, the largest), in the order of the models.
    """
    merges = models[models["kind"] == "merge"].drop_duplicates("variant")
    grids = []
    for method, variants in merges.groupby("method", sort=False):
        parameters = {row.variant: json.loads(row.parameters) for row in variants.itertuples()}
        for name in sorted({name for given in parameters.values() for name in given}):
            largest = max(_sets(parameters, name), key=len, default={})
            if len(largest) >= SMALLEST:
                grids.append(Grid(str(method), name, largest))
    return grids


def whole_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of those variants that no variant of their method exceeds in sizes.

    Args:
        frame: rows with columns method, variant and n; rows of n < 2 (bases, experts) stay. A size
            counts whether its models are there or not.
    """
    merged = frame[frame["n"] > 1]
    sizes = merged.groupby(["method", "variant"])["n"].nunique()
    largest = sizes.groupby("method").transform("max")
    short = set(sizes[sizes < largest].index.get_level_values("variant"))
    return frame[~frame["variant"].isin(short)]


def _sets(parameters: dict[str, dict[str, Any]], name: str) -> Iterator[dict[str, float]]:
    """Yield the variants that differ in hyperparameter `name` alone, with its values."""

    def others(variant: str) -> str:
        rest = {key: value for key, value in parameters[variant].items() if key != name}
        return json.dumps(rest, sort_keys=True)

    numeric = [variant for variant in parameters if _is_number(parameters[variant].get(name))]
    for _, group in itertools.groupby(sorted(numeric, key=others), key=others):
        values = {variant: float(parameters[variant][name]) for variant in group}
        if len(set(values.values())) == len(values):
            yield values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
