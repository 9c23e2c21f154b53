"""Could the gain of a merge be predicted before it was evaluated? One sentence a base."""

from typing import Any

import pandas as pd

from wildmerge.reporting.printing import fixed, signed
from wildmerge.reporting.story.sentences import series
from wildmerge.reporting.tables.prediction import PREDICTORS
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.predictors import PREDICTS


def prediction_sentences(tables: Tables) -> list[str]:
    """Say for each base what predicts which subset of its experts gains more, if anything does."""
    known = tables.predictors.dropna(subset="r2")
    if known.empty:
        return [
            "That needs three subsets of one size or more, whose gains and whose predictors differ."
        ]
    return [_sentence(str(base), rows) for base, rows in known.groupby("base", sort=False)]


def _sentence(base: str, rows: pd.DataFrame) -> str:
    ranked = rows.sort_values("r2", ascending=False, kind="stable")
    good = ranked[ranked["verdict"] == PREDICTS]
    best = next(ranked.itertuples())
    over = f"over {best.subsets} subsets, each left out in turn"
    if len(good):
        named = series(
            [f"{PREDICTORS[row.predictor]} ({_worth(row)})" for row in good.itertuples()]
        )
        return (
            f"On {base}, which subset of experts gains more by the same method could be predicted from "
            f"{named}, {over}; {len(good)} of {len(rows)} simple predictors were shown to do so."
        )
    return (
        f"On {base}, none of {len(rows)} simple predictors was shown to say which subset of experts "
        f"gains more by the same method; the best, {PREDICTORS[best.predictor]}, had {_worth(best)}, "
        f"{over}."
    )


def _worth(row: Any) -> str:
    """Return R^2 on subsets that were left out, which is below 0 for worse than their mean."""
    return f"R² {signed(row.r2)}, adjusted p {fixed(row.p_adjusted, 3)}"
