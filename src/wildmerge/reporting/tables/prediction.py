"""What could be known of a merge before it is evaluated, and how well that predicts its gain.

The predictors come from the tables `models` and `geometry`; `wildmerge.statistics.predictors` judges
them. The confidence of the base is none of them: it is the same for all merges of a base.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from wildmerge.statistics.paired import Floats
from wildmerge.statistics.predictors import Merges, judge

PREDICTORS = {
    "distance": "the distance to the base",
    "mean_cosine": "the mean cosine of the merged experts",
    "min_cosine": "the smallest cosine of the merged experts",
    "sign_conflict": "the mean sign conflict of the merged experts",
    "mean_expert_gain": "the mean gain of the merged experts",
    "best_expert_gain": "the gain of the best merged expert",
}
"""Name of a predictor -> what it is, in a sentence."""


def predictor_table(models: pd.DataFrame, geometry: pd.DataFrame) -> pd.DataFrame:
    """A row a base and predictor: how well it predicts which subset of experts gains more."""
    bases = {}
    for base, of_base in models.groupby("base", sort=False):
        merges = of_base[of_base["kind"] == "merge"]
        measured = geometry[(geometry["base"] == base) & (geometry["part"] == "all")]
        if len(merges):
            bases[str(base)] = arrays_of(merges), predictors_of(merges, of_base, measured)
    return judge(bases)


def arrays_of(merges: pd.DataFrame) -> Merges:
    """Return the merges of one base as arrays."""
    experts = sorted({expert for subset in merges["experts"] for expert in subset.split("+")})
    subsets = list(dict.fromkeys(merges["experts"]))
    members = [[expert in subset.split("+") for expert in experts] for subset in subsets]
    return Merges(
        gains=merges["delta_points"].to_numpy(np.float64),
        variants=np.asarray(pd.factorize(merges["variant"])[0], np.intp),
        subsets=np.array([subsets.index(subset) for subset in merges["experts"]], np.intp),
        members=np.array(members, bool),
    )


def predictors_of(
    merges: pd.DataFrame, models: pd.DataFrame, measured: pd.DataFrame
) -> dict[str, Floats]:
    """Return what each of `PREDICTORS` says of the merges of one base, (models,); NaN: nothing."""
    experts = models[models["kind"] == "expert"]
    gains = dict(zip(experts["experts"], experts["delta_points"], strict=True))
    cosines, conflicts = (_of_pairs(measured, name) for name in ("cosine", "sign_conflict"))
    norms = merges["update_norm"].to_numpy(np.float64)
    with np.errstate(divide="ignore"):  # methods differ by factors, so that shares count
        logarithms = np.log(norms)
    return {
        "distance": np.where(norms > 0, logarithms, np.nan),
        "mean_cosine": _each(merges, lambda subset: _over_pairs(np.mean, cosines, subset)),
        "min_cosine": _each(merges, lambda subset: _over_pairs(np.min, cosines, subset)),
        "sign_conflict": _each(merges, lambda subset: _over_pairs(np.mean, conflicts, subset)),
        "mean_expert_gain": _each(merges, lambda subset: _over(np.mean, gains, subset)),
        "best_expert_gain": _each(merges, lambda subset: _over(np.max, gains, subset)),
    }


def _of_pairs(measured: pd.DataFrame, measure: str) -> dict[Any, float]:
    """Return a measure of two experts by the pair of them."""
    rows = measured[(measured["measure"] == measure) & (measured["other"] != "")]
    return {frozenset((row.expert, row.other)): float(row.number) for row in rows.itertuples()}


def _each(merges: pd.DataFrame, say: Callable[[Sequence[str]], float]) -> Floats:
    return np.array([say(subset.split("+")) for subset in merges["experts"]], np.float64)


def _over_pairs(
    summary: Callable[[Sequence[float]], Any], values: dict[Any, float], subset: Sequence[str]
) -> float:
    return _over(summary, values, [frozenset(pair) for pair in combinations(subset, 2)])


def _over(
    summary: Callable[[Sequence[float]], Any], values: dict[Any, float], keys: Sequence[Any]
) -> float:
    """Return the summary of some values; NaN where one is unknown."""
    found = [values.get(key, np.nan) for key in keys]
    return float(summary(found)) if found else np.nan
