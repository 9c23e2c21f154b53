"""What a study found, in sentences, for the report and the notebooks.

Nothing is computed here but counts: every number is a cell of the study's tables. A gain or a loss is
one that holds after the correction for looking at many comparisons (see docs/statistics.md).
"""

from typing import NamedTuple

import pandas as pd

from wildmerge.reporting.printing import fixed, signed
from wildmerge.reporting.story.methods import hyperparameters, leaders, methods, steps
from wildmerge.reporting.story.models import bases, experts
from wildmerge.reporting.story.prediction import prediction_sentences
from wildmerge.reporting.story.sentences import (
    cells,
    corrected,
    count,
    difference,
    name,
    plural,
    select,
    series,
    share,
)
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.estimates import above
from wildmerge.statistics.of_methods import CHOICE
from wildmerge.statistics.rows import EQUAL, GAIN, LOSS, UNDECIDED

HEADLINES = (  # by the share of merged models above their base
    (1.0, "Merging always helped here"),
    (0.8, "Merging mostly helped here"),
    (0.5, "Merging helped more often than not here"),
    (0.2, "Merging sometimes helped here"),
    (0.0, "Merging rarely helped here"),
)
POSSIBLE = 100
"""Points: no difference is larger."""
BASES = "Are the bases good enough to show a difference?"


class Chapter(NamedTuple):
    """A part of the story: a title that asks, and sentences that answer."""

    title: str
    sentences: list[str]


def chapters(tables: Tables) -> list[Chapter]:
    """Return what a study found, in reading order.

    Args:
        tables: the study's tables.
    """
    found = [
        Chapter(BASES, bases(tables)),
        Chapter("What did fine-tuning do?", experts(tables)),
        Chapter("Did merging help, and which method?", methods(tables)),
        Chapter("Which method is best at which size?", leaders(tables)),
        Chapter("Which hyperparameters?", hyperparameters(tables)),
        Chapter("Do more experts help?", steps(tables)),
        Chapter("Could the gain have been predicted?", prediction_sentences(tables)),
        Chapter("How far can these numbers be trusted?", _trust(tables)),
    ]
    return [chapter for chapter in found if chapter.sentences]


def answer(tables: Tables) -> list[str]:
    """Return the answer to the study's question in three sentences.

    Args:
        tables: the study's tables.
    """
    points = cells(tables.comparisons)
    decided = [
        f"{count(points, verdict)} {words}"
        for verdict, words in ((GAIN, "gain"), (LOSS, "lose"), (EQUAL, "are practically equal"))
        if verdict != EQUAL or count(points, EQUAL)
    ]
    return [
        _headline(tables, points),
        f"Of {plural(len(points), 'combination')} of base, method and size, {series(decided)} (false "
        f"discovery rate 5 %); {count(points, UNDECIDED)} cannot be decided with these items and "
        "subsets.",
        _largest(tables, points),
    ]


def _headline(tables: Tables, points: pd.DataFrame) -> str:
    """The answer in one sentence; without a gain beyond noise, merging is not said to help."""
    merges = tables.models[tables.models["kind"] == "merge"]
    over = int(above(merges["accuracy"], merges["base_accuracy"]).sum())
    words = next(text for least, text in HEADLINES if over / len(merges) >= least)
    if not count(points, GAIN):
        words = "Merging did not help beyond noise here"
    text = f"{words}: {share(over, len(merges))} merged models scored above their base"
    every = merges["delta_every_expert_verdict"]
    if (every != "").any():
        beat = share(int((every == GAIN).sum()), len(merges))
        text += f", and {beat} beat every single expert beyond noise"
    return f"{text}."


def _largest(tables: Tables, points: pd.DataFrame) -> str:
    """The largest mean difference, and what is left of it without the luck of choosing it."""
    best = next(points.sort_values("estimate_points", ascending=False, kind="stable").itertuples())
    text = (
        f"The largest mean difference to a base is {difference(best)}, by {name(best)} with "
        f"n = {best.n} on {best.base}"
    )
    chosen = select(tables.comparisons, what=CHOICE, base=best.base, n=best.n, variant="any method")
    for row in chosen.itertuples():
        text += (
            f"; a method that is chosen by one half of the items differs by {difference(row)} "
            "on the other"
        )
    return f"{text}."


def _trust(tables: Tables) -> list[str]:
    """What the uncertainty is made of, in this study's numbers."""
    points, items = cells(tables.comparisons), tables.benchmarks["items"]
    sentences = [
        f"A benchmark has {_range(items, 'item')}, and a size was tried on "
        f"{_range(points['subsets'], 'subset')}. Intervals join the draw of items, compared item by "
        "item, with the draw of subsets.",
        _power(points["detectable_points"]),
        "Verdicts are corrected for looking at many comparisons: over all combinations against their "
        "base by Benjamini and Hochberg, between methods by Holm.",
    ]
    against = corrected(tables.comparisons)
    if len(against):
        sentences.append(
            "The best single expert is chosen on the items on which it is compared, which flatters it; "
            "verdicts on the difference to it are from halves of the items, one to choose and one to "
            "compare."
        )
    return sentences + _other_experts(points)


def _other_experts(points: pd.DataFrame) -> list[str]:
    """How far the leading mean would hold for other experts of this kind."""
    known = points.dropna(subset="other_low_points")
    if known.empty:
        return []
    best = next(known.sort_values("estimate_points", ascending=False, kind="stable").itertuples())
    return [
        f"All this is about these experts. With others of their kind the mean of {name(best)} with "
        f"n = {best.n} on {best.base}, here {signed(best.estimate_points)} points, could lie between "
        f"{signed(best.other_low_points)} and {signed(best.other_high_points)}."
    ]


def _power(seen: pd.Series) -> str:
    """Which differences this study can see."""
    if seen.min() > POSSIBLE:
        return "These items are too few to see any difference that is possible (80 % power)."
    text = (
        f"A difference of {fixed(seen.min(), 1)} points can be seen in the most precise combination "
        "(80 % power)"
    )
    if seen.max() > POSSIBLE:
        return f"{text}, none that is possible in the least precise one."
    return f"{text}, one of {fixed(seen.max(), 1)} in the least precise one."


def _range(values: pd.Series, name: str) -> str:
    low, high = int(values.min()), int(values.max())
    return plural(low, name) if low == high else f"{low:,} to {plural(high, name)}"
