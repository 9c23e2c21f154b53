"""What a study found, in sentences computed from its tables, for the report and the notebook.

A difference is called "within noise" when it is smaller than 1.96 standard errors, which join the
draw of benchmark items (compared item by item) and the draw of subsets.
"""

import math
from statistics import fmean
from typing import NamedTuple

import pandas as pd

from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.grids import whole_curves
from wildmerge.reporting.printing import fixed, per_cent, signed, significant
from wildmerge.reporting.tables import Tables
from wildmerge.statistics.comparisons import GAIN, LOSS, NOISE, above, half_width, verdicts
from wildmerge.statistics.estimates import combined_stderr, rank_correlation, wilson_interval

NEAR_CEILING = 0.95
HEADLINES = (  # by the share of merged models above their base
    (1.0, "Merging always helped here"),
    (0.8, "Merging mostly helped here"),
    (0.5, "Merging helped more often than not here"),
    (0.2, "Merging sometimes helped here"),
    (0.0, "Merging rarely helped here"),
)
VERDICTS = {
    GAIN: "gain beyond noise",
    LOSS: "lose beyond noise",
    NOISE: "stay within noise of the base",
}
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
        Chapter(BASES, _bases(tables)),
        Chapter("What did fine-tuning do?", _experts(tables)),
        Chapter("Did merging help, and which method?", _methods(tables)),
        Chapter("Which method is best at which size?", _leaders(tables)),
        Chapter("Does a larger update cost accuracy?", _norms(tables)),
        Chapter("How far can these numbers be trusted?", _trust(tables)),
    ]
    return [chapter for chapter in found if chapter.sentences]


def answer(tables: Tables) -> list[str]:
    """Return the answer to the study's question in a few sentences.

    Args:
        tables: the study's tables.
    """
    merges, points = _merges(tables), _points(tables)
    judged = list(verdicts(points["delta_points"], points["delta_stderr_points"]))
    sentences = [
        f"{_headline(merges, judged)}: {_count(merges, 'base')} had a higher mean accuracy than "
        f"their base" + (f", and {_beat_expert(merges)}." if _has_experts(merges) else ".")
    ]
    best = points.sort_values("delta_points", kind="stable").iloc[-1]
    sentences.append(
        f"The largest mean difference to a base is {_difference(best)}, by {_name(best)} "
        f"with n = {best['n']} on {best['base']}."
    )
    counts = [f"{judged.count(verdict)} {words}" for verdict, words in VERDICTS.items()]
    sentences.append(
        f"Of the {len(judged)} combinations of base, method and size, "
        f"{counts[0]}, {counts[1]} and {counts[2]}."
    )
    return sentences


def _headline(merges: pd.DataFrame, judged: list[str]) -> str:
    """The answer in one clause; without a gain beyond noise, merging is not said to help."""
    if GAIN not in judged:
        return "Merging did not help beyond noise here"
    share = _above(merges, "base") / len(merges)
    return next(words for least, words in HEADLINES if share >= least)


def _bases(tables: Tables) -> list[str]:
    """Each base against chance, and whether a benchmark has room to show a difference."""
    sentences = []
    scores = tables.scores[tables.scores["kind"] == "base"]
    for base in tables.models["base"].unique():
        of_base = scores[scores["base"] == base]
        known = of_base.dropna(subset="chance")
        clear = verdicts(known["score"] - known["chance"], known["stderr"]) == GAIN
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
            text += f" Not clearly above chance: {_list(known['label'][~clear])}."
        full = of_base["score"] >= NEAR_CEILING
        if full.any():
            text += f" Near the ceiling, with little room to gain: {_list(of_base['label'][full])}."
        sentences.append(text)
    return sentences


def _experts(tables: Tables) -> list[str]:
    """How many experts beat their base, on average and on single benchmarks."""
    sentences = []
    experts = tables.models[tables.models["kind"] == "expert"]
    for base, of_base in experts.groupby("base", sort=False):
        ranked = of_base.sort_values("delta_points", kind="stable")
        best, worst = ranked.iloc[-1], ranked.iloc[0]
        cells = tables.experts[tables.experts["base"] == base]
        judged = list(verdicts(cells["delta_points"], cells["delta_stderr_points"]))
        sentences.append(
            f"{_above(of_base, 'base')} of {len(of_base)} experts of {base} beat it in mean accuracy; "
            f"the best, {best['experts']}, differs by {_difference(best)}, the worst, "
            f"{worst['experts']}, by {_difference(worst)}. On single benchmarks, "
            f"experts gain beyond noise in {judged.count(GAIN)} of {len(cells)} cases and lose in "
            f"{judged.count(LOSS)}."
        )
    return sentences


def _methods(tables: Tables) -> list[str]:
    """One sentence a variant: how often and how much it beats base and best expert."""
    sentences = []
    merges, points = _merges(tables), whole_curves(tables.curves)
    points = points[(points["n"] > 1) & (points["subsets"] > 0)]
    for (method, variant), curve in points.groupby(["method", "variant"], sort=False):
        models = merges[merges["variant"] == variant]
        means = curve.groupby("n")["delta_points"].mean()
        smallest, largest = means.index.min(), means.index.max()
        low, high = wilson_interval(_above(models, "base"), len(models))
        text = (
            f"{variant_label(str(variant), str(method))}: {_count(models, 'base')} beat their base "
            f"(95 % interval {per_cent(low, 0)} to {per_cent(high, 0)}); the mean difference is "
            f"{signed(means[smallest])} points at n = {smallest}"
        )
        if largest != smallest:
            text += f" and {signed(means[largest])} at n = {largest}"
        noisy = verdicts(curve["delta_points"], curve["delta_stderr_points"]) == NOISE
        text += f"; {noisy.sum()} of {len(curve)} means are within noise."
        if _has_experts(models):
            text += f" {_beat_expert(models)}."
        sentences.append(text)
    return sentences


def _leaders(tables: Tables) -> list[str]:
    """The leading variant of each base and size, and whether its lead is more than noise."""
    sentences = []
    for base, of_base in _points(tables).groupby("base", sort=False):
        parts = []
        for n, of_size in of_base.groupby("n"):
            ranked = of_size.sort_values("delta_points", ascending=False, kind="stable")
            first = ranked.iloc[0]
            text = f"at n = {n} {_name(first)} ({signed(first['delta_points'])} points)"
            if len(ranked) > 1:
                second = ranked.iloc[1]
                lead = first["delta_points"] - second["delta_points"]
                error = combined_stderr(first["delta_stderr_points"], second["delta_stderr_points"])
                how = "within noise of" if verdicts(lead, error) == NOISE else "ahead of"
                text += f", {how} {_name(second)} ({signed(second['delta_points'])})"
            parts.append(text)
        sentences.append(f"On {base}, the best are: {'; '.join(parts)}.")
    return sentences


def _norms(tables: Tables) -> list[str]:
    """Rank correlation of update norm and accuracy, and which methods move farthest."""
    sentences = []
    for base, models in _merges(tables).groupby("base", sort=False):
        rho = rank_correlation(list(models["update_norm"]), list(models["delta_points"]))
        if math.isnan(rho):
            continue
        means = models.groupby("variant", sort=False)["update_norm"].mean()
        methods = models.drop_duplicates("variant").set_index("variant")["method"]
        near, far = means.idxmin(), means.idxmax()
        sentences.append(
            f"On {base}, {_relation(rho)} (rank correlation {signed(rho)} over {len(models)} "
            f"merged models). {variant_label(near, methods[near])} stays closest to the base (mean "
            f"L2 norm {significant(means[near], 3)}), {variant_label(far, methods[far])} goes farthest "
            f"({significant(means[far], 3)})."
        )
    return sentences


def _relation(rho: float) -> str:
    strength = "clearly " if abs(rho) >= 0.7 else "somewhat "
    if abs(rho) < 0.3:
        return "the size of the update says little about accuracy"
    return f"larger updates go with {strength}{'lower' if rho < 0 else 'higher'} accuracy"


def _trust(tables: Tables) -> list[str]:
    """What the uncertainty is made of, in this study's numbers."""
    merges, items = _merges(tables), tables.benchmarks["items"]
    subsets = _points(tables)["subsets"]
    sentences = [
        f"A benchmark has {_range(items)} items. The standard error of one model's mean accuracy "
        f"is about {fixed(100 * merges['stderr'].median(), 1)} points; compared item by item with its "
        f"base it is about {fixed(merges['delta_stderr_points'].median(), 1)}.",
        f"Each size was tried on {_range(subsets)} subsets"
        + (
            ", too few to know their spread well: read bands as hints."
            if subsets.max() < 10
            else "."
        ),
        "The largest gain among many combinations is partly luck; no correction is made for "
        "looking at many.",
    ]
    if _has_experts(merges):
        sentences.append(
            "The best single expert is chosen by the same items on which it is compared, which "
            "flatters it a little."
        )
    return sentences


def _merges(tables: Tables) -> pd.DataFrame:
    return tables.models[tables.models["kind"] == "merge"]


def _points(tables: Tables) -> pd.DataFrame:
    """The curves' points that are merges: one row a base, variant and size of which a model is there."""
    return tables.curves[(tables.curves["n"] > 1) & (tables.curves["subsets"] > 0)]


def _has_experts(models: pd.DataFrame) -> bool:
    return bool(models["delta_best_expert_points"].notna().any())


def _above(models: pd.DataFrame, reference: str) -> int:
    """The number of models whose mean accuracy is above that of the reference."""
    return int(above(models["accuracy"], models[f"{reference}_accuracy"]).sum())


def _count(models: pd.DataFrame, reference: str) -> str:
    count = _above(models, reference)
    return f"{count} of {len(models)} merged models ({per_cent(count / len(models), 0)})"


def _beat_expert(models: pd.DataFrame) -> str:
    count, mean = _above(models, "best_expert"), fmean(models["delta_best_expert_points"])
    return (
        f"{count} of {len(models)} ({per_cent(count / len(models), 0)}) beat their base's best "
        f"single expert (mean difference {signed(mean)} points)"
    )


def _difference(point: pd.Series) -> str:
    delta, stderr = point["delta_points"], point["delta_stderr_points"]
    noise = ", within noise" if verdicts(delta, stderr) == NOISE else ""
    return f"{signed(delta)} points (\u00b1 {fixed(float(half_width(stderr)), 2)}{noise})"


def _name(point: pd.Series) -> str:
    return variant_label(point["variant"], point["method"])


def _list(names: pd.Series) -> str:
    return ", ".join(names)


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
