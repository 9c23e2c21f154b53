"""The answers of one base's models, as arrays: what every comparison is computed from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wildmerge.statistics.paired import Clusters, Floats


class Size(NamedTuple):
    """The models that one variant made of subsets of one size; n = 1 are the experts, of variant ""."""

    method: str
    variant: str
    n: int
    rows: NDArray[np.intp]  # of the complete models, in the order of their subsets
    planned: int  # subsets of the study, complete or not
    all: int  # subsets that there are of the base's experts


@dataclass(frozen=True)
class BaseAnswers:
    """All models of one base and what they answered.

    Attributes:
        models: a row a model of the study, with the columns base, kind, method, variant, n, subset,
            experts and recipe_id, numbered from 0.
        values: per benchmark, each model's value of each item, (models, items); a model without a
            result has zeros, which `known` says.
        known: per benchmark, which models have a result, (models,).
        clusters: per benchmark, the question of each item, (items,); None where each is asked once.
        chance: per benchmark, the expected score of a random choice; NaN where that means nothing.
    """

    models: pd.DataFrame
    values: dict[str, NDArray[Any]]
    known: dict[str, NDArray[np.bool_]]
    clusters: dict[str, Clusters | None]
    chance: dict[str, float]

    @property
    def labels(self) -> list[str]:
        """The benchmarks."""
        return list(self.values)

    @property
    def groups(self) -> list[Clusters | None]:
        """The clusters of each benchmark, in the order of `labels`."""
        return [self.clusters[label] for label in self.labels]

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """Which models have a result on every benchmark, (models,)."""
        complete: NDArray[np.bool_] = np.all(list(self.known.values()), axis=0)
        return complete

    @cached_property
    def base(self) -> int | None:
        """The row of the base, if it is complete."""
        found = np.flatnonzero((self.models["kind"] == "base").to_numpy() & self.complete)
        return int(found[0]) if len(found) else None

    @cached_property
    def experts(self) -> NDArray[np.intp]:
        """The rows of the complete experts."""
        return np.flatnonzero((self.models["kind"] == "expert").to_numpy() & self.complete)

    @cached_property
    def merges(self) -> NDArray[np.intp]:
        """The rows of the complete merged models."""
        return np.flatnonzero((self.models["kind"] == "merge").to_numpy() & self.complete)

    @cached_property
    def accuracy(self) -> Floats:
        """Each model's unweighted mean over benchmarks, (models,); NaN where it is not complete."""
        means = np.mean([values.mean(1) for values in self.values.values()], axis=0)
        return np.where(self.complete, means, np.nan)

    @cached_property
    def best_expert(self) -> int | None:
        """The row of the expert with the highest accuracy; of equals, the first by name."""
        names = self.models["experts"]
        ranked = sorted(
            self.experts, key=lambda row: (-round(float(self.accuracy[row]), 9), names[row])
        )
        return int(ranked[0]) if ranked else None

    def differences(self, rows: Sequence[int] | NDArray[np.intp], reference: int) -> list[Floats]:
        """Return, per benchmark, the models' differences to a reference, (rows, items)."""
        return [
            values[rows].astype(np.float64) - values[reference] for values in self.values.values()
        ]

    def sizes(self) -> Iterator[Size]:
        """Yield the experts and every variant's models of one size, of which some are complete."""
        count = int((self.models["kind"] == "expert").sum())
        merged = self.models[self.models["n"] > 0]
        for (variant, n), planned in merged.groupby(["variant", "n"], sort=False):
            rows = planned.index.to_numpy()
            rows = rows[self.complete[rows]]
            if len(rows):
                method = str(planned["method"].iat[0])
                all_of_them = max(comb(count, int(n)), len(planned))
                yield Size(method, str(variant), int(n), rows, len(planned), all_of_them)
