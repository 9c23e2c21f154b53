"""Can the gain of a merge be predicted before it is evaluated? Predictors, judged on unseen subsets.

Merges of one base are compared within cells, one a variant and size: which subset of experts gains more
than others by the same method? A predictor x is a line, y = a_cell + b x, with one slope b for the base.
All merges of one subset are left out together, by whatever method; slope and means come from the others:

    R^2 = 1 - sum (y - predicted)^2 / sum (y - mean of the others in its cell)^2

It is below 0 for a predictor that misleads, and 1 for a perfect one.

The p-value says how often a predictor that knows nothing of these merges reaches as high an R^2. Subsets
share experts, so that a study of many subsets still has few independent ones. What a predictor says is
therefore split into a sum over the experts of a subset and a rest; experts are exchanged in the sum, and
subsets of one size in the rest. Exchanging whole subsets calls useless predictors good in up to 40 % of
studies (docs/statistics.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wildmerge.statistics.estimates import rank_correlation
from wildmerge.statistics.families import holm
from wildmerge.statistics.of_sizes import generator
from wildmerge.statistics.paired import Floats
from wildmerge.statistics.rows import SIGNIFICANT

Codes = NDArray[np.intp]

PERMUTATIONS = 1999
PREDICTS, NOT_SHOWN = "predicts", "not shown"
COLUMNS = (
    *("base", "predictor", "models", "subsets", "r2", "rank_correlation", "p", "p_adjusted"),
    "verdict",
)
ENOUGH = 3
"""Subsets a cell: of two, what is left when one is left out has no slope."""
_TINY = 1e-12


@dataclass(frozen=True)
class Merges:
    """The merged models of one base, N of S subsets of E experts.

    Attributes:
        gains: differences to the base, in points, (N,).
        variants: number of each model's variant, (N,).
        subsets: number of each model's subset, (N,).
        members: which experts a subset holds, (S, E).
    """

    gains: Floats
    variants: Codes
    subsets: Codes
    members: NDArray[np.bool_]

    @property
    def cells(self) -> Codes:
        """Number of each model's variant and size, (N,)."""
        sizes = self.members.sum(1)[self.subsets]
        codes = self.variants * (self.members.shape[1] + 1) + sizes
        return np.unique(codes, return_inverse=True)[1]

    def only(self, kept: NDArray[np.bool_]) -> Merges:
        """Return some of the models, of the same subsets."""
        return Merges(self.gains[kept], self.variants[kept], self.subsets[kept], self.members)


def judge(bases: Mapping[str, tuple[Merges, Mapping[str, Floats]]]) -> pd.DataFrame:
    """Judge predictors of the gain.

    Args:
        bases: the merges of each base, and what each predictor says of them by its name, (N,); NaN where
            it says nothing.

    Returns:
        A row a base and predictor, with `COLUMNS`; numbers are NaN where no cell has three subsets, or
        gains or predictor are the same for all. P-values are adjusted over all rows by Holm.
    """
    rows = [
        (base, name, *judge_one(merges, np.asarray(x, np.float64), generator(base, name)))
        for base, (merges, predictors) in bases.items()
        for name, x in predictors.items()
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS[:7]))
    table = table.astype({name: np.float64 for name in COLUMNS[4:7]})
    known = table["p"].notna()
    table["p_adjusted"] = np.nan
    table.loc[known, "p_adjusted"] = holm(table.loc[known, "p"].to_numpy())
    shown = (table["p_adjusted"] <= SIGNIFICANT) & (table["r2"] > 0)
    return table.assign(verdict=np.where(shown, PREDICTS, NOT_SHOWN))


def judge_one(
    merges: Merges, x: Floats, draws: np.random.Generator
) -> tuple[int, int, float, float, float]:
    """Return models, subsets, R^2, rank correlation and p-value of one predictor."""
    merges, x = _usable(merges, x)
    cells = merges.cells
    subsets = len(np.unique(merges.subsets))
    said, gained = centred(x, cells), centred(merges.gains, cells)
    if not (_vary(said, x) and _vary(gained, merges.gains)):
        return len(x), subsets, np.nan, np.nan, np.nan
    found = float(unseen_r2(said[None], merges)[0])
    correlation = rank_correlation(list(said), list(gained))
    others = unseen_r2(uninformed(x, merges, draws), merges)
    reached = int((others >= found - _TINY).sum())
    return len(x), subsets, found, correlation, (1 + reached) / (1 + PERMUTATIONS)


def _vary(deviations: Floats, values: Floats) -> bool:
    """Return whether values differ within a cell by more than rounding."""
    return bool((np.abs(deviations) > _TINY * np.abs(values).max(initial=1.0)).any())


def _usable(merges: Merges, x: Floats) -> tuple[Merges, Floats]:
    """Leave out models of which the predictor says nothing, and cells with too few others."""
    known = np.isfinite(x)
    merges, x = merges.only(known), x[known]
    cells = merges.cells
    several = np.bincount(cells)[cells] >= ENOUGH
    return merges.only(several), x[several]


def centred(values: Floats, cells: Codes) -> Floats:
    """Return values less the mean of their cell; the last axis is that of the models."""
    counts = np.bincount(cells)
    membership = cells[:, None] == np.arange(len(counts))
    means = values @ (membership / np.maximum(counts, 1))
    return np.asarray(values - means[..., cells], np.float64)


def unseen_r2(x: Floats, merges: Merges) -> Floats:
    """Return R^2 on subsets that were left out.

    Without model i its cell's mean moves by 1/(m - 1) of its deviation, and the cell's sum of squares
    falls by m/(m - 1) of that squared, m models being in the cell: no refit is needed.

    Args:
        x: predictors, (P, N).
        merges: N models, at least two a cell, whose gains differ in a cell.

    Returns:
        (P,).
    """
    cells = merges.cells
    counts = np.bincount(cells)[cells]
    factor = counts / (counts - 1)
    x, y = centred(x, cells), centred(merges.gains, cells)
    subset = np.unique(merges.subsets, return_inverse=True)[1]
    of_subset = (subset[:, None] == np.arange(subset.max() + 1)).astype(np.float64)
    squares = (x * x).sum(-1, keepdims=True)
    left = squares - (factor * x * x) @ of_subset
    products = (x * y).sum(-1, keepdims=True) - (factor * x * y) @ of_subset
    varies = left > _TINY * squares
    slopes = np.divide(products, left, out=np.zeros_like(left), where=varies)
    errors = factor * (y - slopes[:, subset] * x)
    without = float(((factor * y) ** 2).sum())
    return np.asarray(1 - (errors**2).sum(-1) / without, np.float64)


def uninformed(x: Floats, merges: Merges, draws: np.random.Generator) -> Floats:
    """Return predictors of the same kind that know nothing of these merges, (PERMUTATIONS, N).

    Args:
        x: the predictor, (N,).
        merges: N models, at least two a cell.
        draws: of the permutations.
    """
    experts = merges.members.shape[1]
    sizes = merges.members.sum(1)
    shares = merges.members / np.maximum(sizes, 1)[:, None]
    order = np.stack([draws.permutation(experts) for _ in range(PERMUTATIONS)])
    places = np.stack([_within(sizes, draws) for _ in range(PERMUTATIONS)])
    made = np.zeros((PERMUTATIONS, len(x)))
    for variant in np.unique(merges.variants):
        of_variant = merges.variants == variant
        subset = merges.subsets[of_variant]
        cells = merges.cells[of_variant]
        said = centred(x[of_variant], cells)
        effects = np.linalg.lstsq(centred(shares[subset].T, cells).T, said, rcond=1e-9)[0]
        rest = np.zeros(len(sizes))  # of a subset that this variant lacks there is none
        rest[subset] = said - centred(shares[subset].T, cells).T @ effects
        made[:, of_variant] = effects[order] @ shares[subset].T + rest[places][:, subset]
    return made


def _within(sizes: Codes, draws: np.random.Generator) -> Codes:
    """Return a permutation of subsets that keeps their sizes."""
    places = np.arange(len(sizes))
    for size in np.unique(sizes):
        same = np.flatnonzero(sizes == size)
        places[same] = draws.permutation(same)
    return places
