"""A study's results as the arrays that statistics works on."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wildmerge.reporting.tables.answers import Answers
from wildmerge.reporting.tables.collect import MODEL, Results
from wildmerge.reporting.tables.grids import find_grids
from wildmerge.statistics.answers import BaseAnswers


def base_answers(found: Results) -> list[BaseAnswers]:
    """Return what the models of each base answered, in the order of the study."""
    return [
        _of_base(found, models[MODEL].reset_index(drop=True))
        for _, models in found.recipes.groupby("base", sort=False)
    ]


def choices(recipes: pd.DataFrame) -> dict[str, list[str]]:
    """Return what one may choose between in a study: the methods, and each grid of a hyperparameter."""
    merges = recipes[recipes["kind"] == "merge"]
    found = {"any method": list(merges["variant"].unique())}
    for grid in find_grids(recipes):
        found[f"{grid.method}: {grid.parameter}"] = list(grid.values)
    return found


def _of_base(found: Results, models: pd.DataFrame) -> BaseAnswers:
    values: dict[str, NDArray[Any]] = {}
    known: dict[str, NDArray[np.bool_]] = {}
    chance: dict[str, float] = {}
    for label in found.labels:
        answers = [found.answers.get((recipe, label)) for recipe in models["recipe_id"]]
        present = [each for each in answers if each]
        chance[label] = present[0].chance if present else np.nan
        known[label] = np.array([each is not None for each in answers])
        values[label] = _stacked(answers, present)
    return BaseAnswers(models, values, known, found.clusters, chance)


def _stacked(answers: list[Answers | None], present: list[Answers]) -> NDArray[Any]:
    """Return the values of all models, (models, items); zeros for a model without a result."""
    items = present[0].items if present else 0
    dtype = np.result_type(*[each.values.dtype for each in present]) if present else np.int8
    stacked = np.zeros((len(answers), items), dtype)
    for row, each in enumerate(answers):
        if each:
            stacked[row] = each.values
    return stacked
