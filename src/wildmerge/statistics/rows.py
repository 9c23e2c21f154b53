"""The table of comparisons: one row a comparison, with its interval, p-values and verdict.

Differences are in points (hundredths of accuracy), shares of subsets in per cent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from wildmerge.statistics.families import benjamini_hochberg, holm
from wildmerge.statistics.paired import Estimate, Floats, half_widths, p_values

GAIN, LOSS, EQUAL, UNDECIDED = "gain", "loss", "equal", "undecided"
PRACTICAL = 0.5
"""Points under which a difference does not matter to a user."""
SIGNIFICANT = 0.05

COLUMNS = (
    *("what", "base", "is_average", "method", "variant", "n", "experts", "recipe_id", "label"),
    *("reference", "reference_name", "estimate_points", "stderr_points", "low_points"),
    *(
        "high_points",
        "df",
        "detectable_points",
        "p",
        "family",
        "adjustment",
        "p_adjusted",
        "verdict",
        "beyond_practical",
    ),
    *("items", "subsets", "subsets_planned", "subsets_all", "over", "estimator"),
    *("tried_low_points", "tried_high_points", "all_low_points", "all_high_points"),
    *("other_low_points", "other_high_points", "gained", "lost", "mcnemar_p"),
    *("subsets_above", "share_above_pct", "share_low_pct", "share_high_pct"),
)
TEXT = (
    *("what", "base", "method", "variant", "experts", "recipe_id", "label", "reference"),
    *("reference_name", "family", "adjustment", "verdict", "over", "estimator"),
)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        keys: what is compared with what, by the names of columns.
        estimate: the difference, as a share, whose interval is printed.
        family: the comparisons among which it is one of many; "" for none.
        holm: adjust the family's p-values by Holm, not by Benjamini and Hochberg.
        extra: other columns.
        interval: its ends and p-value, where they do not follow from `estimate`.
    """

    keys: dict[str, Any]
    estimate: Estimate
    family: str = ""
    holm: bool = False
    extra: dict[str, Any] = field(default_factory=dict)
    interval: tuple[float, float, float] | None = None


def to_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return comparisons as a table: intervals, p-values adjusted within families, verdicts."""
    estimates = [row.estimate for row in rows]
    low, high, p = _intervals(rows)
    half = half_widths(estimates, 0.90)
    value = np.array([e.value for e in estimates])
    frame = pd.DataFrame([row.keys | row.extra for row in rows])
    frame = frame.assign(
        estimate_points=100 * value,
        stderr_points=[100 * e.stderr for e in estimates],
        low_points=100 * low,
        high_points=100 * high,
        df=[e.df for e in estimates],
        detectable_points=100 * _detectable(estimates),
        p=p,
        family=[row.family for row in rows],
        adjustment=[_adjustment(row) for row in rows],
    )
    frame["p_adjusted"] = _adjusted(frame)
    frame["mcnemar_p"] = _exact(frame)
    least = np.maximum(np.abs(value) - half, 0)
    most = np.abs(value) + half
    frame["verdict"] = _verdicts(frame, 100 * most)
    decided = frame["verdict"].isin([GAIN, LOSS])
    frame["beyond_practical"] = decided & (100 * least > PRACTICAL)
    for column in COLUMNS:
        if column not in frame:
            frame[column] = "" if column in TEXT else np.nan
    texts = dict.fromkeys(TEXT, "")
    return frame[list(COLUMNS)].fillna(texts)


def _intervals(rows: Sequence[Row]) -> tuple[Floats, Floats, Floats]:
    """Return the ends of the 95 % intervals and the p-values."""
    estimates = [row.estimate for row in rows]
    value = np.array([e.value for e in estimates])
    half, p = half_widths(estimates), p_values(estimates)
    low, high = np.maximum(value - half, -1.0), np.minimum(value + half, 1.0)
    for i, row in enumerate(rows):
        if row.interval:
            low[i], high[i], p[i] = row.interval
    return low, high, p


def _detectable(estimates: Sequence[Estimate]) -> Floats:
    """Return the differences that would be seen with a probability of 80 %, at the level of 5 %."""
    df, stderr = (np.array([getattr(e, name) for e in estimates]) for name in ("df", "stderr"))
    return np.asarray((stats.t.ppf(0.975, df) + stats.norm.ppf(0.8)) * stderr, np.float64)


def _exact(frame: pd.DataFrame) -> Floats:
    """Return McNemar's p-value of two models on one benchmark of right and wrong answers, else NaN."""
    found = np.full(len(frame), np.nan)
    if "right_or_wrong" in frame:
        counted = (frame["right_or_wrong"].eq(True) & (frame["label"] != "")).to_numpy()
        found[counted] = mcnemar(frame["gained"][counted], frame["lost"][counted])
    return found


def mcnemar(gained: ArrayLike, lost: ArrayLike) -> Floats:
    """Return the exact two-sided p-values of McNemar's test.

    Args:
        gained: numbers of items that one of two models alone answers right, (n,).
        lost: those that the other alone answers right, (n,).

    Returns:
        (n,); 1 where no item differs.

    Source: Q. McNemar, Psychometrika 12 (1947), 153-157; exact by the binomial distribution.
    """
    less, both = np.minimum(gained, lost), np.add(gained, lost)
    return np.asarray(np.minimum(1.0, 2 * stats.binom.cdf(less, both, 0.5)), np.float64)


def _adjustment(row: Row) -> str:
    return "" if not row.family else "Holm" if row.holm else "Benjamini-Hochberg"


def _adjusted(frame: pd.DataFrame) -> Floats:
    """Return p-values adjusted within each family; those of no family as they are."""
    adjusted = np.array(frame["p"], np.float64)
    for (family, adjustment), members in frame.groupby(["family", "adjustment"]).indices.items():
        if family:
            adjust = holm if adjustment == "Holm" else benjamini_hochberg
            adjusted[members] = adjust(adjusted[members])
    return adjusted


def _verdicts(frame: pd.DataFrame, most: Floats) -> NDArray[np.str_]:
    """Return gain or loss where the adjusted p-value says so, else equal or undecided."""
    beyond = (frame["p_adjusted"] <= SIGNIFICANT).to_numpy()
    sign = np.where(frame["estimate_points"] > 0, GAIN, LOSS)
    return np.where(beyond, sign, np.where(most <= PRACTICAL, EQUAL, UNDECIDED))
