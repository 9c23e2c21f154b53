"""From a study's results to its tables: scores, models, curves, experts and the paper's Tables 1-3.

`aggregate` writes them under `results/<study>/tables`; figures, notebooks and report read nothing
else. Numbers keep their full precision; what is printed from them is rounded once, in `printing.py`.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting.appearance import use
from wildmerge.reporting.tables import published as published_numbers
from wildmerge.reporting.tables.arrays import base_answers, choices
from wildmerge.reporting.tables.collect import collect
from wildmerge.reporting.tables.frames import (
    DELTA,
    UNBIASED,
    benchmark_table,
    curve_tables,
    expert_table,
    model_table,
    score_table,
)
from wildmerge.reporting.tables.inspection import cosine_table, geometry_table, inspection_table
from wildmerge.reporting.tables.layouts import to_latex, to_markdown
from wildmerge.reporting.tables.paper_tables import paper_table
from wildmerge.reporting.tables.prediction import predictor_table
from wildmerge.statistics.comparisons import compare
from wildmerge.statistics.rows import TEXT as COMPARISON_TEXT
from wildmerge.storage.files import write_atomically

VERDICTS = (*DELTA.values(), UNBIASED, "above_chance")
TEXT = (
    *("base", "kind", "method", "variant", "experts", "expert", "best_expert", "recipe_id"),
    *("parameters", "task", "label", "metric", "num_fewshot", "limit", "evaluation_id"),
    *("name", "value", "reference", "other", "merges", "remarks", "refusal", "remark", "why"),
    *("average_differs_in", "family", "source", "revision", "licence", *COMPARISON_TEXT),
    *(f"{name}_verdict" for name in VERDICTS),
    *("measure", "part", "measured_on", "predictor"),
)


class Tables(NamedTuple):
    """The tables of a study, one frame each, in a CSV and a Parquet file."""

    comparisons: (
        pd.DataFrame
    )  # a row a comparison: estimate, interval, verdict; all others select from it
    scores: pd.DataFrame  # a row a model and benchmark
    models: pd.DataFrame  # a row a model: mean accuracy, against base and best expert
    curves: pd.DataFrame  # a row a base, variant and n: the mean over subsets
    benchmark_curves: pd.DataFrame  # the same for each benchmark
    experts: pd.DataFrame  # a row an expert and benchmark: its gain over the base
    benchmarks: pd.DataFrame  # a row a benchmark: items, chance, settings
    inspection: pd.DataFrame  # a row an expert: does it merge, and its distance to the base
    geometry: (
        pd.DataFrame
    )  # a row a measure of task vectors: norms, cosines, signs, ranks, subspaces
    cosines: pd.DataFrame  # a row a pair of experts: the cosine of their task vectors
    predictors: pd.DataFrame  # a row a base and predictor: does it predict the gain of a merge?
    methods: pd.DataFrame  # a row a method: what it is called, its family, where it comes from
    checkpoints: pd.DataFrame  # a row a base and expert: source, revision, licence
    missing: pd.DataFrame  # a row a model and benchmark without a result, and why
    remarks: pd.DataFrame  # a row a remark that merging or scoring made on a model
    provenance: pd.DataFrame  # versions, settings and remarks found in result files
    table1: pd.DataFrame  # weight-space methods (and a user's own) against the base
    table2: pd.DataFrame  # Task Arithmetic against the best single expert
    table3: pd.DataFrame  # subspace methods against the base
    published_comparison: pd.DataFrame  # these three beside published ones, a row a shared cell

    @property
    def numbered(self) -> list[pd.DataFrame]:
        """The paper's Tables 1, 2 and 3."""
        return [self.table1, self.table2, self.table3]


def aggregate(
    results: Path,
    study: str,
    published: Path | None = None,
    *,
    strict: bool = False,
    out: Path | None = None,
) -> Path:
    """Compute and write all tables of a study; a result that is not there leaves a gap in them.

    Args:
        results: the results directory, which holds `<study>/`, `evals/` and `merges/`.
        study: the study's name.
        published: CSV of published numbers to set beside Tables 1-3.
        strict: refuse a study with a gap.
        out: the directory of the tables; default `results/<study>/tables`.

    Returns:
        The directory of the tables.

    Raises:
        Refusal: a result is unreadable or of another model, models answered different items, or
            there is nothing to compare; with `strict`, a result is missing.
    """
    out = out or Path(results) / study / "tables"
    tables = compute_tables(Path(results), study, published, strict=strict)
    for name, frame in tables._asdict().items():
        write_atomically(out / f"{name}.csv", to_csv(frame))
        write_atomically(out / f"{name}.parquet", frame.to_parquet(index=False))
    for number, frame in enumerate(tables.numbered, start=1):
        write_atomically(out / f"table{number}.tex", to_latex(number, frame))
        write_atomically(out / f"table{number}.md", to_markdown(number, frame))
    beside = published_numbers.to_markdown(tables.published_comparison)
    write_atomically(out / "published_comparison.md", beside)
    return out


def compute_tables(results: Path, study: str, published: Path | None, *, strict: bool) -> Tables:
    """Compute all tables of a study; the arguments are those of `aggregate`."""
    found = collect(results, study, strict=strict)
    methods = _listed(results / study / "methods.csv", METHOD)
    use(methods)
    compared = compare(base_answers(found), choices(found.recipes))
    models, scores = model_table(found, compared), score_table(found, compared)
    curves, benchmark_curves = curve_tables(found, models, compared)
    bases = list(found.recipes["base"].unique())
    geometry = geometry_table(results / study / "geometry", bases)
    numbered = [paper_table(number, curves, compared) for number in (1, 2, 3)]
    comparison = pd.DataFrame(columns=published_numbers.COLUMNS)
    if published:
        known = published_numbers.read_published(published)
        comparison = published_numbers.compare(known, numbered)
    return Tables(
        comparisons=compared,
        scores=scores,
        models=models,
        curves=curves,
        benchmark_curves=benchmark_curves,
        experts=expert_table(scores),
        benchmarks=benchmark_table(found),
        inspection=inspection_table(results / study / "inspect", bases),
        geometry=geometry,
        cosines=cosine_table(geometry),
        predictors=predictor_table(models, geometry),
        methods=methods,
        checkpoints=_listed(results / study / "checkpoints.csv", CHECKPOINT),
        missing=found.missing,
        remarks=found.remarks,
        provenance=_with_choices(found.provenance, results / study / "choices.csv"),
        table1=numbered[0],
        table2=numbered[1],
        table3=numbered[2],
        published_comparison=comparison,
    )


def read_tables(tables: Path) -> Tables:
    """Read the tables of a study back.

    Args:
        tables: the directory that `aggregate` returned.

    Raises:
        Refusal: if a table is missing.
    """
    frames = {}
    for name in Tables._fields:
        path = Path(tables) / f"{name}.csv"
        if not path.is_file():
            raise Refusal(f"no table {path}; make it with `wildmerge aggregate`")
        # A name may be empty or read "NA"; only an empty number is an unknown one.
        frames[name] = pd.read_csv(
            path,
            converters=dict.fromkeys(TEXT, str),
            keep_default_na=False,
            na_values=[""],
            float_precision="round_trip",
        )
    use(frames["methods"])
    return Tables(**frames)


METHOD = ["method", "label", "family", "source"]
CHECKPOINT = ["base", "kind", "expert", "source", "revision", "licence"]


def _listed(path: Path, columns: list[str]) -> pd.DataFrame:
    """Read what the study's workflow listed; an older study lists less."""
    if path.is_file():
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame(columns=columns)


def _with_choices(provenance: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Add what the study chose that no result file knows: its seed, and the version that listed it."""
    chosen = _listed(path, ["name", "value"]).assign(kind="study", files=1)
    return pd.concat([provenance, chosen[provenance.columns]], ignore_index=True)


def to_csv(frame: pd.DataFrame) -> str:
    """Return a frame as CSV: full precision, no negative zero, empty where a number is unknown."""
    numbers = frame.select_dtypes("float") + 0.0
    text: str = frame.assign(**numbers).to_csv(index=False, lineterminator="\n")
    return text
