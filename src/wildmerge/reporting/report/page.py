"""What the report shows, as printed: its tables cell by cell, ready for the template to lay out.

Everything here is a named tuple of texts, lists and named tuples: a template that asks for a part that
is not there fails instead of finding something else.
"""

import os
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.printing import UNKNOWN, fixed, per_cent, signed, significant
from wildmerge.reporting.tables.layouts import CAPTIONS, Block, blocks, reference_of
from wildmerge.reporting.tables.paper_tables import sizes
from wildmerge.reporting.tables.published import DIFFERENCE
from wildmerge.reporting.tables.study import Tables


class Question(NamedTuple):
    """The numbers in the study's question."""

    merges: int
    variants: int
    bases: list[str]
    experts: int
    sizes: list[int]
    benchmarks: int


class Value(NamedTuple):
    """A number as printed, and whether it is a gain, a loss or noise."""

    text: str
    verdict: str


class BenchmarkRow(NamedTuple):
    """A benchmark with the score of every base."""

    label: str
    items: str
    chance: str
    scores: list[Value]


class InspectionRow(NamedTuple):
    """An expert as it was found before merging."""

    expert: str
    merges: str
    distance: str
    relative: str
    remark: str


class InspectionTable(NamedTuple):
    """A base's experts as they were found before merging."""

    base: str
    merging: int
    rows: list[InspectionRow]


class ExpertRow(NamedTuple):
    """An expert: its mean accuracy, and its gain on average and on each benchmark."""

    expert: str
    accuracy: str
    gains: list[Value]


class ExpertTable(NamedTuple):
    """The experts of a base."""

    base: str
    labels: list[str]
    rows: list[ExpertRow]


class PaperTable(NamedTuple):
    """One of the paper's tables."""

    number: int
    title: str
    reference: str
    sizes: list[int]
    blocks: list[Block]


class PublishedRow(NamedTuple):
    """A cell of the published tables beside ours."""

    table: int
    base: str
    method: str
    n: int
    published: str
    ours: str
    difference: str


class RecipeRow(NamedTuple):
    """A variant, its hyperparameters and how many models it made."""

    label: str
    parameters: str
    models: int


class FoundRow(NamedTuple):
    """A version, setting or remark, and in how many files it was found."""

    kind: str
    name: str
    value: str
    files: int


def question(tables: Tables) -> Question:
    """Return the numbers in the study's question."""
    models = tables.models
    merges = models[models["kind"] == "merge"]
    return Question(
        merges=len(merges),
        variants=merges["variant"].nunique(),
        bases=list(models["base"].unique()),
        experts=int((models["kind"] == "expert").sum()),
        sizes=sorted(int(n) for n in merges["n"].unique()),
        benchmarks=len(tables.benchmarks),
    )


def base_rows(tables: Tables) -> list[BenchmarkRow]:
    """Return a row a benchmark: chance, items, and each base's score with its 95 % half-width."""
    scores = tables.scores[tables.scores["kind"] == "base"].set_index(["label", "base"])
    return [
        BenchmarkRow(
            benchmark.label,
            fixed(benchmark.items, 0),
            per_cent(benchmark.chance),
            [_score(scores.loc[benchmark.label, base]) for base in tables.models["base"].unique()],
        )
        for benchmark in tables.benchmarks.itertuples()
    ]


def _score(row: pd.Series) -> Value:
    half = (row["above_chance_high_points"] - row["above_chance_low_points"]) / 2
    return Value(f"{per_cent(row['score'])} ± {fixed(half, 1)}", str(row["above_chance_verdict"]))


def inspections(tables: Tables) -> list[InspectionTable]:
    """Return each base's experts as they were found before merging: those that merge or do not."""
    return [
        InspectionTable(
            str(base),
            int((rows["merges"] == "yes").sum()),
            [
                InspectionRow(
                    row.expert,
                    row.merges,
                    significant(row.distance, 3),
                    f"{significant(100 * row.relative, 2)} %" if row.merges == "yes" else UNKNOWN,
                    row.refusal or row.remarks,
                )
                for row in rows.itertuples()
            ],
        )
        for base, rows in tables.inspection.groupby("base", sort=False)
    ]


def expert_tables(tables: Tables) -> list[ExpertTable]:
    """Return each base's experts: mean accuracy, and gains on average and on each benchmark."""
    labels, found = list(tables.benchmarks["label"]), []
    gains = tables.experts.set_index(["base", "expert", "label"])
    gains = gains[["delta_points", "delta_verdict"]]
    for base, models in tables.models[tables.models["kind"] == "expert"].groupby(
        "base", sort=False
    ):
        rows = [
            ExpertRow(
                model.experts,
                per_cent(model.accuracy),
                [
                    _gain(model.delta_points, model.delta_verdict),
                    *(_gain(*gains.loc[(base, model.experts, label)]) for label in labels),
                ],
            )
            for model in models.itertuples()
        ]
        found.append(ExpertTable(str(base), labels, rows))
    return found


def _gain(points: float, verdict: str) -> Value:
    return Value(signed(points, 1), verdict)


def paper_tables(tables: Tables) -> list[PaperTable]:
    """Return the paper's tables."""
    return [
        PaperTable(
            number, CAPTIONS[number], reference_of(number), sizes(frame), list(blocks(frame))
        )
        for number, frame in enumerate(tables.numbered, start=1)
    ]


def published_rows(tables: Tables) -> list[PublishedRow]:
    """Return every published cell beside ours."""
    rows = []
    for row in tables.published_comparison.itertuples():
        printed = signed(row.published_delta_points)
        if DIFFERENCE in row.average_differs_in:
            printed += f" † ({signed(row.mean_of_printed_rows)})"
        numbers = (signed(row.ours_delta_points), signed(row.difference_points))
        label = variant_label(row.variant, row.method)
        rows.append(PublishedRow(row.table, row.base, label, row.n, printed, *numbers))
    return rows


def recipe_rows(tables: Tables) -> list[RecipeRow]:
    """Return each variant's hyperparameters and how many models it made."""
    merges = tables.models[tables.models["kind"] == "merge"]
    groups = merges.groupby(["method", "variant", "parameters"], sort=False).size()
    return [
        RecipeRow(variant_label(variant, method), parameters, int(count))
        for (method, variant, parameters), count in groups.items()
    ]


def found_rows(tables: Tables) -> list[FoundRow]:
    """Return what was found in the result files, but for the remarks, which have their own place."""
    kept = tables.provenance[tables.provenance["kind"] != "remark"]
    return [FoundRow(*row) for row in kept.itertuples(index=False)]


def links(tables: Path, out: Path) -> list[tuple[str, str]]:
    """Return names and relative links of the CSV files beside the report."""
    folder = Path(os.path.relpath(Path(tables).resolve(), Path(out).resolve().parent))
    return [(f"{name}.csv", (folder / f"{name}.csv").as_posix()) for name in Tables._fields]
