"""The tidy frames of a study: models, scores, curves, experts and benchmarks, from its results.

Accuracies are shares (0 to 1), differences are in points (hundredths of that), spreads over subsets
are sample standard deviations (ddof = 1; unknown for a single subset). Means are over models that have
a result on every benchmark; of a base that lacks one, nothing can be compared.
"""

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting.collect import MODEL, Results
from wildmerge.statistics.comparisons import above, mean_difference_points, stderr_over_subsets
from wildmerge.statistics.estimates import paired_stderr, sample_deviation, stderr_of_mean

# a reference -> the beginning of the names of its columns: its accuracy, and the difference to it
BASE = ("base", "delta")
BEST_EXPERT = ("best_expert", "delta_best_expert")


def model_table(found: Results) -> pd.DataFrame:
    """One row a complete model: mean accuracy over benchmarks, against its base and the best expert."""
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
                    "best_expert": best_name,
                    "update_norm": _norm(found, recipe),
                    "rounding_share": found.rounding_shares.get(recipe.recipe_id, math.nan),
                }
                | _against(found, [recipe.recipe_id], base_id, *BASE)
                | _against(found, [recipe.recipe_id], best_id, *BEST_EXPERT)
            )
    if not any(row["kind"] == "merge" for row in rows):
        raise Refusal(_why_nothing(found))
    return pd.DataFrame(rows)


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


def _against(
    found: Results, ids: list[str], reference: str | None, name: str, delta: str
) -> dict[str, float]:
    """The columns that compare the mean accuracy of one or more models with a reference's."""
    columns = (f"{name}_accuracy", f"{delta}_points", f"{delta}_stderr_points")
    if reference is None:
        return dict.fromkeys(columns, math.nan)
    return dict(zip(columns, _difference(found, found.labels, ids, reference), strict=True))


def _difference(
    found: Results, labels: list[str], ids: list[str], reference: str
) -> tuple[float, float, float]:
    """The reference's accuracy, the models' mean difference to it, and its standard error, in points.

    The error joins the draw of items, compared item by item, and the draw of subsets.
    """
    beat = found.accuracy(reference, labels)
    if not ids:
        return beat, math.nan, math.nan
    accuracies = [found.accuracy(model, labels) for model in ids]
    items = stderr_of_mean(
        [
            paired_stderr(
                [found.answers[model, label].values for model in ids],
                found.answers[reference, label].values,
            )
            for label in labels
        ]
    )
    error = 100 * stderr_over_subsets(items, accuracies)
    return beat, mean_difference_points(accuracies, beat), error


def score_table(found: Results) -> pd.DataFrame:
    """One row a model and benchmark; without a result of the base there is no difference to it."""
    bases = found.recipes[found.recipes["kind"] == "base"]
    base_ids = dict(zip(bases["base"], bases["recipe_id"], strict=True))
    rows = []
    for recipe in found.recipes.itertuples():
        for benchmark in found.benchmarks.itertuples():
            label, base_id = benchmark.label, base_ids[recipe.base]
            if (recipe.recipe_id, label) not in found.answers:
                continue
            result, difference = found.answers[recipe.recipe_id, label], (math.nan,) * 3
            if (base_id, label) in found.answers:
                difference = _difference(found, [label], [recipe.recipe_id], base_id)
            compared = ("base_score", "delta_points", "delta_stderr_points")
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
                }
                | dict(zip(compared, difference, strict=True))
            )
    return pd.DataFrame(rows)


def curve_tables(found: Results, models: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean accuracy against n, over all benchmarks and for each of them.

    Every base and variant gets its own n = 0 (the base) and n = 1 (the single experts), so that each
    curve is whole. `subsets` of `subsets_planned` models of a point are there; a point with none has
    no numbers.
    """
    rows, benchmark_rows = [], []
    for base, of_base in models.groupby("base", sort=False):
        base_id = of_base.loc[of_base["kind"] == "base", "recipe_id"].iat[0]
        best_id, _ = _best_expert(found, of_base)
        for point, planned in _points(found.recipes[found.recipes["base"] == base]):
            name = point["variant"] if point["n"] > 1 else ""
            members = of_base[(of_base["variant"] == name) & (of_base["n"] == point["n"])]
            point |= {"subsets": len(members), "subsets_planned": planned}
            rows.append(point | _mean_point(found, members, base_id, best_id))
            for benchmark in found.benchmarks.itertuples():
                chance = found.answers[base_id, benchmark.label].chance
                named = {"task": benchmark.task, "label": benchmark.label, "chance": chance}
                spread = _spread(found, [benchmark.label], list(members["recipe_id"]), base_id)
                benchmark_rows.append(point | named | spread)
    return pd.DataFrame(rows), pd.DataFrame(benchmark_rows)


def _points(recipes: pd.DataFrame) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield what each point of a base's curves is called, and how many models it should have."""
    merges = recipes[recipes["kind"] == "merge"]
    for (method, variant), of_variant in merges.groupby(["method", "variant"], sort=False):
        for n, planned in pd.concat([recipes[recipes["n"] < 2], of_variant]).groupby("n"):
            base = planned["base"].iat[0]
            yield {"base": base, "method": method, "variant": variant, "n": n}, len(planned)


def _mean_point(
    found: Results, members: pd.DataFrame, base_id: str, best_id: str | None
) -> dict[str, float]:
    """The columns of one point of a curve over all benchmarks, against base and best expert."""
    ids = list(members["recipe_id"])
    norm = fmean(members["update_norm"]) if ids else math.nan
    counts = {
        f"subsets_above_{name}": int(above(members["accuracy"], members[f"{name}_accuracy"]).sum())
        for name, _ in (BASE, BEST_EXPERT)
    }
    best = _against(found, ids, best_id, *BEST_EXPERT)
    return _spread(found, found.labels, ids, base_id) | best | counts | {"update_norm": norm}


def _spread(found: Results, labels: list[str], ids: list[str], base_id: str) -> dict[str, float]:
    """The columns of one point of a curve against the base."""
    accuracies = [found.accuracy(model, labels) for model in ids]
    beat, difference, error = _difference(found, labels, ids, base_id)
    return {
        "accuracy": fmean(accuracies) if ids else math.nan,
        "sd": sample_deviation(accuracies),
        "base_accuracy": beat,
        "delta_points": difference,
        "delta_stderr_points": error,
    }


def expert_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Each expert against its base, a row an expert and benchmark."""
    experts = scores[scores["kind"] == "expert"].rename(columns={"experts": "expert"})
    columns = ["base", "expert", "task", "label", "items", "chance", "base_score", "score"]
    return experts[[*columns, "delta_points", "delta_stderr_points"]]


def benchmark_table(found: Results) -> pd.DataFrame:
    """The study's benchmarks with their number of items and the score of a random choice."""
    of_label = {label: answers for (_, label), answers in found.answers.items()}
    known = [of_label.get(label) for label in found.labels]
    return found.benchmarks.assign(
        items=[answers.items if answers else math.nan for answers in known],
        chance=[answers.chance if answers else math.nan for answers in known],
    )
