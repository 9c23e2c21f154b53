"""The tidy frames of a study: models, scores, curves, experts and benchmarks, from its results.

Accuracies are shares (0 to 1), differences are in points (hundredths of that), spreads over subsets
are sample standard deviations (ddof = 1; unknown for a single subset).
"""

import math
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting.collect import Results, difference_stderr
from wildmerge.statistics.comparisons import mean_difference_points, stderr_over_subsets
from wildmerge.statistics.estimates import sample_deviation, stderr_of_mean

# a reference -> the beginning of the names of its columns: its accuracy, and the difference to it
BASE = ("base", "delta")
BEST_EXPERT = ("best_expert", "delta_best_expert")


def model_table(found: Results) -> pd.DataFrame:
    """One row a model: mean accuracy over benchmarks, against its base and the best expert."""
    rows = []
    for base, recipes in found.recipes.groupby("base", sort=False):
        base_id = _base_id(recipes, str(base))
        best_id, best_name = _best_expert(found, recipes)
        for recipe in recipes.itertuples():
            rows.append(
                _identity(recipe)
                | {
                    "recipe_id": recipe.recipe_id,
                    "parameters": recipe.parameters,
                    "accuracy": found.accuracy(recipe.recipe_id, found.tasks),
                    "stderr": found.stderr(recipe.recipe_id, found.tasks),
                    "best_expert": best_name,
                    "update_norm": _norm(found, recipe),
                }
                | _against(found, recipe.recipe_id, base_id, *BASE)
                | _against(found, recipe.recipe_id, best_id, *BEST_EXPERT)
            )
    return pd.DataFrame(rows)


def _identity(recipe: Any) -> dict[str, Any]:
    """The columns by which a model is known to readers."""
    columns = ("base", "kind", "method", "variant", "n", "subset", "experts")
    return {column: getattr(recipe, column) for column in columns}


def _base_id(recipes: pd.DataFrame, base: str) -> str:
    ids = recipes.loc[recipes["kind"] == "base", "recipe_id"]
    if len(ids) != 1:
        raise Refusal(f"recipes.csv lists {len(ids)} models of kind base for {base}; it needs one")
    return str(ids.iloc[0])


def _best_expert(found: Results, recipes: pd.DataFrame) -> tuple[str | None, str]:
    """The expert with the highest mean accuracy (of equals, the first by name), if there is one."""
    experts = recipes[recipes["kind"] == "expert"]
    ranked = sorted(
        zip(experts["recipe_id"], experts["experts"], strict=True),
        key=lambda pair: (-round(found.accuracy(pair[0], found.tasks), 9), pair[1]),
    )
    return ranked[0] if ranked else (None, "")


def _norm(found: Results, recipe: Any) -> float:
    """L2 norm of (model - base); 0 for the base itself, unknown for a single expert."""
    return 0.0 if recipe.kind == "base" else found.update_norms.get(recipe.recipe_id, math.nan)


def _against(
    found: Results, model: str, reference: str | None, name: str, delta: str
) -> dict[str, float]:
    """The columns that compare one model's mean accuracy with a reference's."""
    columns = (f"{name}_accuracy", f"{delta}_points", f"{delta}_stderr_points")
    if reference is None:
        return dict.fromkeys(columns, math.nan)
    beat = found.accuracy(reference, found.tasks)
    points = mean_difference_points([found.accuracy(model, found.tasks)], beat)
    stderr = 100 * _mean_difference_stderr(found, found.tasks, [model], reference)
    return dict(zip(columns, (beat, points, stderr), strict=True))


def _mean_difference_stderr(
    found: Results, tasks: list[str], models: list[str], reference: str
) -> float:
    """Standard error of the models' mean accuracy minus the reference's, from items."""
    return stderr_of_mean(
        [
            difference_stderr(
                [found.evaluations[model, task] for model in models],
                found.evaluations[reference, task],
            )
            for task in tasks
        ]
    )


def score_table(found: Results) -> pd.DataFrame:
    """One row a model and benchmark."""
    base_ids = _base_ids(found)
    rows = []
    for recipe in found.recipes.itertuples():
        for benchmark in found.benchmarks.itertuples():
            result = found.evaluations[recipe.recipe_id, benchmark.task]
            base = found.evaluations[base_ids[recipe.base], benchmark.task]
            rows.append(
                _identity(recipe)
                | {
                    "task": benchmark.task,
                    "label": benchmark.label,
                    "score": result.score,
                    "stderr": result.stderr,
                    "items": result.items,
                    "chance": result.chance,
                    "base_score": base.score,
                    "delta_points": mean_difference_points([result.score], base.score),
                    "delta_stderr_points": 100 * difference_stderr([result], base),
                }
            )
    return pd.DataFrame(rows)


def _base_ids(found: Results) -> dict[str, str]:
    bases = found.recipes[found.recipes["kind"] == "base"]
    return dict(zip(bases["base"], bases["recipe_id"], strict=True))


def curve_points(models: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """Yield each curve's points: the base (n = 0), the experts (n = 1) and the merges of each size.

    Every base and variant gets its own n = 0 and n = 1, so that each curve is whole.
    """
    if not (models["kind"] == "merge").any():
        raise Refusal("the study merges nothing: recipes.csv has no row of kind merge")
    for base, of_base in models.groupby("base", sort=False):
        merges = of_base[of_base["kind"] == "merge"]
        for (method, variant), of_variant in merges.groupby(["method", "variant"], sort=False):
            for n, members in pd.concat([of_base[of_base["n"] < 2], of_variant]).groupby("n"):
                yield {"base": base, "method": method, "variant": variant, "n": n}, members


def curve_tables(found: Results, models: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean accuracy against n, over all benchmarks and for each of them."""
    base_ids = _base_ids(found)
    rows, benchmark_rows = [], []
    for point, members in curve_points(models):
        ids, base_id = list(members["recipe_id"]), base_ids[point["base"]]
        norm = fmean(members["update_norm"])
        rows.append(point | _spread(found, found.tasks, ids, base_id) | {"update_norm": norm})
        for benchmark in found.benchmarks.itertuples():
            chance = found.evaluations[base_id, benchmark.task].chance
            benchmark_rows.append(
                point
                | {"task": benchmark.task, "label": benchmark.label, "chance": chance}
                | _spread(found, [benchmark.task], ids, base_id)
            )
    return pd.DataFrame(rows), pd.DataFrame(benchmark_rows)


def _spread(found: Results, tasks: list[str], ids: list[str], base_id: str) -> dict[str, float]:
    """The columns of one point of a curve.

    The standard error of the difference joins the draw of items and the draw of subsets.
    """
    accuracies = [found.accuracy(model, tasks) for model in ids]
    base_accuracy = found.accuracy(base_id, tasks)
    items = _mean_difference_stderr(found, tasks, ids, base_id)
    return {
        "subsets": len(ids),
        "accuracy": fmean(accuracies),
        "sd": sample_deviation(accuracies),
        "base_accuracy": base_accuracy,
        "delta_points": mean_difference_points(accuracies, base_accuracy),
        "delta_stderr_points": 100 * stderr_over_subsets(items, accuracies),
    }


def expert_table(scores: pd.DataFrame) -> pd.DataFrame:
    """Each expert against its base, a row an expert and benchmark."""
    experts = scores[scores["kind"] == "expert"].rename(columns={"experts": "expert"})
    columns = ["base", "expert", "task", "label", "items", "chance", "base_score", "score"]
    return experts[[*columns, "delta_points", "delta_stderr_points"]]


def benchmark_table(found: Results) -> pd.DataFrame:
    """The study's benchmarks with their number of items and the score of a random choice."""
    first = next(iter(_base_ids(found).values()))
    results = [found.evaluations[first, task] for task in found.benchmarks["task"]]
    return found.benchmarks.assign(
        items=[result.items for result in results], chance=[result.chance for result in results]
    )
