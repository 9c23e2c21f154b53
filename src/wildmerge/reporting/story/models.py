"""The story of a study's bases and single experts."""

from statistics import fmean

import pandas as pd

from wildmerge.reporting.printing import per_cent
from wildmerge.reporting.story.sentences import count, difference, select
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.estimates import above
from wildmerge.statistics.of_models import MODEL
from wildmerge.statistics.rows import GAIN, LOSS

NEAR_CEILING = 0.95


def bases(tables: Tables) -> list[str]:
    """Each base against chance, and whether a benchmark has room to show a difference."""
    sentences = []
    scores = tables.scores[tables.scores["kind"] == "base"]
    for base in tables.models["base"].unique():
        of_base = scores[scores["base"] == base]
        known = of_base.dropna(subset="chance")
        clear = known["above_chance_verdict"] == GAIN
        text = (
            f"{base} scores {per_cent(fmean(of_base['score']))} on average over "
            f"{len(of_base)} benchmarks"
        )
        if len(known):
            text += (
                f", where a random choice scores {per_cent(fmean(known['chance']))}"
                + (f" (on {len(known)} of them)" if len(known) < len(of_base) else "")
                + f"; it is clearly above chance on {clear.sum()} of {len(known)}"
            )
        text += "."
        if not clear.all():
            text += f" Not clearly above chance: {', '.join(known['label'][~clear])}."
        full = of_base["score"] >= NEAR_CEILING
        if full.any():
            text += (
                f" Near the ceiling, with little room to gain: {', '.join(of_base['label'][full])}."
            )
        sentences.append(text)
    return sentences


def experts(tables: Tables) -> list[str]:
    """How many experts beat their base, on average and on single benchmarks."""
    sentences = []
    single = select(tables.comparisons, what=MODEL, reference="base", label="", method="")
    models = tables.models[tables.models["kind"] == "expert"]
    for base, rows in single.groupby("base", sort=False):
        on_benchmarks = tables.experts[tables.experts["base"] == base]
        gained, lost = (int((on_benchmarks["delta_verdict"] == v).sum()) for v in (GAIN, LOSS))
        ranked = list(rows.sort_values("estimate_points", kind="stable").itertuples())
        best, worst = ranked[-1], ranked[0]
        text = f"{_above(models, base)} of {len(rows)} experts of {base} score above it"
        text += (
            f", {count(rows, GAIN)} beyond noise, and {count(rows, LOSS)} below it beyond noise; "
        )
        if len(rows) == 1:
            text += f"{best.experts} differs by {difference(best)}. "
        else:
            text += (
                f"the best, {best.experts}, differs by {difference(best)}, the worst, {worst.experts}, "
                f"by {difference(worst)}. "
            )
        text += (
            f"On single benchmarks, experts gain beyond noise in {gained} of {len(on_benchmarks)} "
            f"cases and lose in {lost}."
        )
        sentences.append(text)
    return sentences


def _above(models: pd.DataFrame, base: object) -> int:
    """The number of experts whose mean accuracy is above that of the base."""
    of_base = models[models["base"] == base]
    return int(above(of_base["accuracy"], of_base["base_accuracy"]).sum())
