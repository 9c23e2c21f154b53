"""The tidy frames of a study: models, scores, curves, experts and benchmarks, from its results.

Accuracies are shares (0 to 1), differences are in points (hundredths of that), spreads over subsets
are sample standard deviations (ddof = 1; unknown for a single subset). Means are over models that have
a result on every benchmark; of a base that lacks one, nothing can be compared. Differences, their
intervals and verdicts are those of the study's comparisons: nothing is computed here a second time.
"""

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting.tables.collect import MODEL, Results
from wildmerge.statistics.estimates import sample_deviation
from wildmerge.statistics.of_models import MODEL as SINGLE
from wildmerge.statistics.of_sizes import HALVES, SIZE

INTERVAL = {  # column of comparisons -> how its name ends in the other tables
    "estimate_points": "points",
    "stderr_points": "stderr_points",
    "low_points": "low_points",
    "high_points": "high_points",
    "p_adjusted": "p_adjusted",
    "verdict": "verdict",
}
BASE, BEST_EXPERT, EVERY_EXPERT = "base", "best_expert", "every_expert"
DELTA = {BASE: "delta", BEST_EXPERT: "delta_best_expert", EVERY_EXPERT: "delta_every_expert"}
"""A reference -> how the names of the columns of the difference to it begin."""
UNBIASED = "delta_best_expert_unbiased"
"""The difference to the best expert without the luck of choosing it: begin of its columns."""


def model_table(found: Results, compared: pd.DataFrame) -> pd.DataFrame:
    """One row a complete model: mean accuracy over benchmarks, against its base and the experts."""
    rows = []
    for base_id, recipes in _comparable(found):
        best_id, best_name = _best_expert(found, recipes)
        for recipe in recipes.itertuples():
            rows.append(
                _identity(recipe)
                | {
                    "parameters": recipe.parameters,
                    "accuracy": found.accuracy(recipe.recipe_id, found.labels),
                    "stderr": found.stderr(recipe.recipe_id, found.labels),
                    "base_accuracy": found.accuracy(base_id, found.labels),
                    "best_expert": best_name,
                    "best_expert_accuracy": (
                        found.accuracy(best_id, found.labels) if best_id else math.nan
                    ),
                    "update_norm": _norm(found, recipe),
                    "rounding_share": found.rounding_shares.get(recipe.recipe_id, math.nan),
                }
            )
    if not any(row["kind"] == "merge" for row in rows):
        raise Refusal(_why_nothing(found))
    single = compared[(compared["what"] == SINGLE) & (compared["label"] == "")]
    models = pd.DataFrame(rows)
    counts = ["gained", "lost"]
    models = _joined(models, single, BASE, DELTA[BASE], keys=RECIPE, extra=counts)
    models = _joined(models, single, BEST_EXPERT, DELTA[BEST_EXPERT], keys=RECIPE)
    return _joined(models, single, EVERY_EXPERT, DELTA[EVERY_EXPERT], keys=RECIPE)


RECIPE = ["base", "variant", "n", "experts", "recipe_id"]
POINT = ["base", "variant", "n"]


def _joined(
    frame: pd.DataFrame,
    compared: pd.DataFrame,
    reference: str,
    name: str,
    *,
    keys: Sequence[str],
    extra: Sequence[str] = (),
) -> pd.DataFrame:
    """Return a frame with the columns of its rows' difference to a reference."""
    columns = {column: f"{name}_{end}" for column, end in INTERVAL.items()}
    rows = compared[compared["reference"] == reference]
    rows = rows[[*keys, *columns, *extra]].drop_duplicates(list(keys)).rename(columns=columns)
    joined = frame.merge(rows, how="left", on=list(keys), validate="many_to_one")
    return joined.fillna({f"{name}_verdict": ""})


def _comparable(found: Results) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the id of each complete base, and the complete models of it."""
    for base, recipes in found.complete().groupby("base", sort=False):
        planned = found.recipes[found.recipes["base"] == base]
        if (planned["kind"] == "base").sum() != 1:
            raise Refusal(f"recipes.csv: no single model of kind base for {base}; make it again")
        ids = recipes.loc[recipes["kind"] == "base", "recipe_id"]
        if len(ids):
            yield str(ids.iloc[0]), recipes


def _why_nothing(found: Results) -> str:
    if not (found.recipes["kind"] == "merge").any():
        return "the study merges nothing: recipes.csv has no row of kind merge"
    first = next(found.missing.itertuples())
    return (
        f"no merged model and its base have a result on every benchmark yet; the first that is missing: "
        f"{first.base} {first.variant} {first.experts} on {first.label} ({first.why}); "
        "run the study, or see `wildmerge status`"
    )


def _identity(recipe: Any) -> dict[str, Any]:
    """The columns by which a model is known."""
    return {column: getattr(recipe, column) for column in MODEL}


def _best_expert(found: Results, recipes: pd.DataFrame) -> tuple[str | None, str]:
    """The expert with the highest mean accuracy (of equals, the first by name), if there is one."""
    experts = recipes[recipes["kind"] == "expert"]
    ranked = sorted(
        zip(experts["recipe_id"], experts["experts"], strict=True),
        key=lambda pair: (-round(found.accuracy(pair[0], found.labels), 9), pair[1]),
    )
    return ranked[0] if ranked else (None, "")


def _norm(found: Results, recipe: Any) -> float:
    """L2 norm of (model - base); 0 for the base itself, unknown for a single expert."""
    return 0.0 if recipe.kind == "base" else found.update_norms.get(recipe.recipe_id, math.nan)


def score_table(found: Results, compared: pd.DataFrame) -> pd.DataFrame:
    """One row a model and benchmark; without a result of the base there is no difference to it."""
    bases = found.recipes[found.recipes["kind"] == "base"]
    base_ids = dict(zip(bases["base"], bases["recipe_id"], strict=True))
    rows = []
    for recipe in found.recipes.itertuples():
        for benchmark in found.benchmarks.itertuples():
            label, base_id = benchmark.label, base_ids[recipe.base]
            if (recipe.recipe_id, label) not in found.answers:
                continue
            result = found.answers[recipe.recipe_id, label]
            base = found.answers.get((base_id, label))
            rows.append(
                _identity(recipe)
                | {
                    "task": benchmark.task,
                    "metric": benchmark.metric,
                    "label": label,
                    "score": result.score,
                    "stderr": result.stderr,
                    "items": result.items,
                    "chance": result.chance,
                    "base_score": base.score if base else math.nan,
                }
            )
    single = compared[(compared["what"] == SINGLE) & (compared["label"] != "")]
    keys, counts = [*RECIPE, "label"], ["gained", "lost", "mcnemar_p"]
    scores = _joined(pd.DataFrame(rows), single, BASE, DELTA[BASE], keys=keys, extra=counts)
    return _joined(scores, single, "chance", "above_chance", keys=keys)


def curve_tables(
    found: Results, models: pd.DataFrame, compared: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean accuracy against n, over all benchmarks and for each of them.

    Every base and variant gets its own n = 0 (the base) and n = 1 (the single experts), so that each
    curve is whole. `subsets` of `subsets_planned` models of a point are there; a point with none has
    no numbers.
    """
    rows, benchmark_rows = [], []
    for base, of_base in models.groupby("base", sort=False):
        base_id = of_base.loc[of_base["kind"] == "base", "recipe_id"].iat[0]
        for point, planned in _points(found.recipes[found.recipes["base"] == base]):
            name = point["variant"] if point["n"] > 1 else ""
            members = of_base[(of_base["variant"] == name) & (of_base["n"] == point["n"])]
            ids = list(members["recipe_id"])
            point |= {"point": name, "subsets": len(members), "subsets_planned": planned}
            norm = fmean(members["update_norm"]) if ids else math.nan
            mean = _spread(found, found.labels, ids, base_id) | {"update_norm": norm}
            best = {"best_expert_accuracy": of_base["best_expert_accuracy"].iat[0]}
            rows.append(point | mean | best)
            for benchmark in found.benchmarks.itertuples():
                chance = found.answers[base_id, benchmark.label].chance
                named = {"task": benchmark.task, "label": benchmark.label, "chance": chance}
                spread = _spread(found, [benchmark.label], ids, base_id)
                benchmark_rows.append(point | named | spread)
    return _with_comparisons(pd.DataFrame(rows), pd.DataFrame(benchmark_rows), compared)


def _with_comparisons(
    curves: pd.DataFrame, benchmark_curves: pd.DataFrame, compared: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add to each point of the curves its difference to the base and to the best expert."""
    sizes = compared[(compared["what"] == SIZE) & ~compared["is_average"]]
    sizes = sizes.rename(columns={"variant": "point"})
    keys = ["base", "point", "n"]
    mean = sizes[(sizes["label"] == "") & (sizes["estimator"] != HALVES)]
    corrected = sizes[sizes["estimator"] == HALVES]
    curves = _joined(curves, mean, BASE, DELTA[BASE], keys=keys, extra=SHARES)
    curves = _joined(curves, mean, BEST_EXPERT, DELTA[BEST_EXPERT], keys=keys)
    curves = _joined(curves, corrected, BEST_EXPERT, UNBIASED, keys=keys)
    above = mean[mean["reference"] == BEST_EXPERT]
    above = above[[*keys, "subsets_above"]]
    above = above.rename(columns={"subsets_above": "subsets_above_best_expert"})
    curves = curves.merge(above, how="left", on=keys, validate="many_to_one")
    curves = curves.rename(columns={"subsets_above": "subsets_above_base"}).drop(columns="point")
    by_label = sizes[sizes["label"] != ""]
    benchmark_curves = _joined(benchmark_curves, by_label, BASE, DELTA[BASE], keys=[*keys, "label"])
    return curves, benchmark_curves.drop(columns="point")


SHARES = ["subsets_all", "over", "subsets_above", "share_low_pct", "share_high_pct"]


def _points(recipes: pd.DataFrame) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what each point of a base's curves is called, and how many models it should have."""
    merges = recipes[recipes["kind"] == "merge"]
    for (method, variant), of_variant in merges.groupby(["method", "variant"], sort=False):
        for n, planned in pd.concat([recipes[recipes["n"] < 2], of_variant]).groupby("n"):
            base = planned["base"].iat[0]
            yield {"base": base, "method": method, "variant": variant, "n": n}, len(planned)


def _spread(found: Results, labels: list[str], ids: list[str], base_id: str) -> dict[str, float]:
    """The accuracy of one point of a curve, its spread over subsets, and the base's accuracy."""
    accuracies = [found.accuracy(model, labels) for model in ids]
    return {
        "accuracy": fmean(accuracies) if ids else math.nan,
        "sd": sample_deviation(accuracies),
        "base_accuracy": found.accuracy(base_id, labels),
    }


def expert_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Each expert against its base, a row an expert and benchmark."""
    experts = scores[scores["kind"] == "expert"].rename(columns={"experts": "expert"})
    columns = ["base", "expert", "task", "label", "items", "chance", "base_score", "score"]
    return experts[[*columns, *(f"delta_{end}" for end in INTERVAL.values())]]


def benchmark_table(found: Results) -> pd.DataFrame:
    """The study's benchmarks with their number of items and the score of a random choice."""
    of_label = {label: answers for (_, label), answers in found.answers.items()}
    known = [of_label.get(label) for label in found.labels]
    return found.benchmarks.assign(
        items=[answers.items if answers else math.nan for answers in known],
        chance=[answers.chance if answers else math.nan for answers in known],
    )
