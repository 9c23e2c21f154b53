"""Models against a reference that answered the same items, outside of any study."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from wildmerge.statistics.of_models import MODEL, PAIRED, items_of
from wildmerge.statistics.paired import Clusters, Floats, difference
from wildmerge.statistics.rescoring import rescored
from wildmerge.statistics.rows import Row, to_table

COLUMNS = (
    *("model", "reference_name", "label", "score", "reference_score", "estimate_points"),
    *("stderr_points", "low_points", "high_points", "df", "detectable_points", "p"),
    *("family", "adjustment", "p_adjusted", "verdict", "items", "gained", "lost", "mcnemar_p"),
    *("rescored", "differing", "differing_of", "differing_pct"),
    *("differing_low_pct", "differing_high_pct", "floor_points"),
)


def compare_pairs(
    values: Mapping[str, Mapping[str, Floats]],
    clusters: Mapping[str, Clusters | None],
    again: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Compare models with the first of them, on each benchmark and in the mean over benchmarks.

    Args:
        values: by model and benchmark, each item's value, (items,); all models have all benchmarks.
        clusters: by benchmark, the question of each item, (items,); None where each is asked once.
        again: by model, how the reference itself was scored for a second time: "by hf".

    Returns:
        A row a model and benchmark, and one a model with an empty `label`: the mean over benchmarks.
        p-values are adjusted by Holm: of one model over its benchmarks, of the means over the models
        (without the reference's second scores, for which see `rescoring.rescored`).
    """
    reference, *others = values
    rows, extra = [], []
    for model in others:
        rescoring = (again or {}).get(model, "")
        for row, differences, scores in _of_model(model, reference, values, clusters):
            rows.append(replace(row, family="") if rescoring and not row.keys["label"] else row)
            changed = _changed(differences) if rescoring else {}
            extra.append({"model": model, "rescored": rescoring, **scores, **changed})
    table = to_table(rows)
    return table.assign(**pd.DataFrame(extra)).reindex(columns=list(COLUMNS))


def _changed(differences: Sequence[Floats]) -> dict[str, float]:
    """Return what scoring a model again changed, as columns."""
    found = rescored(differences)
    return {
        "differing": found.differing,
        "differing_of": found.items,
        "differing_pct": 100 * found.share,
        "differing_low_pct": 100 * found.low,
        "differing_high_pct": 100 * found.high,
        "floor_points": 100 * found.floor,
    }


def _of_model(
    model: str,
    reference: str,
    values: Mapping[str, Mapping[str, Floats]],
    clusters: Mapping[str, Clusters | None],
) -> Iterator[tuple[Row, list[Floats], dict[str, float]]]:
    """Yield one model's comparisons, the items' differences, and the scores they are between."""
    ours, theirs = values[model], values[reference]
    differences = {label: ours[label] - theirs[label] for label in theirs}
    scores = {label: (ours[label].mean(), theirs[label].mean()) for label in theirs}
    keys = {"what": MODEL, "reference_name": reference, "estimator": PAIRED}
    for label, found in differences.items():
        yield (
            Row(
                keys | {"label": label},
                difference([found], [clusters[label]]),
                family=f"benchmarks of {model}",
                holm=True,
                extra=items_of([found]),
            ),
            [found],
            dict(zip(("score", "reference_score"), scores[label], strict=True)),
        )
    every = list(differences.values())
    yield (
        Row(
            keys | {"label": ""},
            difference(every, [clusters[label] for label in differences]),
            family=f"models against {reference}",
            holm=True,
            extra=items_of(every),
        ),
        every,
        dict(zip(("score", "reference_score"), np.mean([*scores.values()], axis=0), strict=True)),
    )
