"""Reading what a study's jobs left behind: recipes, benchmarks, evaluations, items and merge reports.

This is the only reader of `results/evals`, `results/items` and `results/merges`; everything after it
works on the tables. A result that is not there is a gap, which the tables show; one that is unreadable,
or of another model or of other items, is refused.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.jobs.record import read_record
from wildmerge.reporting.appearance import method_order
from wildmerge.reporting.tables.answers import Answers, read_answers
from wildmerge.scoring.items import AGAIN, read_items
from wildmerge.scoring.result import check_result
from wildmerge.statistics.estimates import stderr_of_mean
from wildmerge.statistics.paired import Clusters
from wildmerge.storage.files import read_json
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark

KINDS = ("base", "expert", "merge")
FOUND = {"versions": "version", "settings": "setting", "scored_by": "scored by"}
MODEL = ["base", "kind", "method", "variant", "n", "subset", "experts", "recipe_id"]
"""The columns by which a model is known: those of readers, and the id that decides its numbers."""


@dataclass(frozen=True)
class Results:
    """A study's results: its recipe and benchmark tables, and what was measured for each."""

    recipes: pd.DataFrame  # a row a model of the study, there or not
    benchmarks: pd.DataFrame
    answers: dict[tuple[str, str], Answers]  # by (recipe id, label of the benchmark)
    clusters: dict[str, Clusters | None]  # by label: of each item, its question, or none
    update_norms: dict[str, float]  # by recipe id, merges only
    rounding_shares: dict[str, float]  # likewise; NaN where the report does not say it
    missing: pd.DataFrame  # a row a model and benchmark that is not there, and why
    remarks: pd.DataFrame  # a row a remark of a merge report or a result file
    provenance: pd.DataFrame  # kind, name, value, files

    @property
    def labels(self) -> list[str]:
        """The labels of the study's benchmarks."""
        return list(self.benchmarks["label"])

    def complete(self) -> pd.DataFrame:
        """Return the recipes of models that have a result on every benchmark."""
        return self.recipes[~self.recipes["recipe_id"].isin(self.missing["recipe_id"])]

    def accuracy(self, recipe_id: str, labels: list[str]) -> float:
        """Return a model's unweighted mean score over benchmarks (0 to 1)."""
        return fmean(self.answers[recipe_id, label].score for label in labels)

    def stderr(self, recipe_id: str, labels: list[str]) -> float:
        """Return the standard error of `accuracy`, from the draw of items."""
        return stderr_of_mean([self.answers[recipe_id, label].stderr for label in labels])


def collect(results: Path, study: str, *, strict: bool = False) -> Results:
    """Read all results of a study.

    Args:
        results: the results directory, which holds `<study>/`, `evals/`, `items/` and `merges/`.
        study: the study's name.
        strict: refuse a study with a gap.

    Returns:
        Its results, recipes sorted by base, kind, method, variant, size and subset.

    Raises:
        Refusal: a file is unreadable, of another model, benchmark or version; two models answered
            different items; with `strict`, a result is missing.
    """
    recipes = _read_recipes(results / study / "recipes.csv")
    benchmarks = _read_benchmarks(results / study / "benchmarks.csv")
    reading = _Reading(results, _failures(results / study / "status"))
    for recipe in recipes.itertuples():
        reading.model(recipe, list(benchmarks.itertuples()))
    reading.same_items(recipes, list(benchmarks["label"]))
    missing = pd.DataFrame(reading.missing, columns=[*MODEL, "label", "why"])
    if strict and len(missing):
        raise Refusal(f"{study}: {_gaps(missing)}; `wildmerge status` says how the study stands")
    return Results(
        recipes,
        benchmarks,
        reading.answers,
        reading.clusters(list(benchmarks.itertuples())),
        reading.norms,
        reading.rounding,
        missing,
        pd.DataFrame(reading.remarks, columns=[*MODEL, "label", "remark"]),
        reading.provenance(),
    )


class _Reading:
    """What was found so far while the files of a study are read."""

    def __init__(self, results: Path, failures: dict[str, str]) -> None:
        self.results, self.failures = results, failures
        self.answers: dict[tuple[str, str], Answers] = {}
        self.norms: dict[str, float] = {}
        self.rounding: dict[str, float] = {}
        self.missing: list[tuple[Any, ...]] = []
        self.remarks: list[tuple[Any, ...]] = []
        self.found: Counter[tuple[str, str, str]] = Counter()

    def model(self, recipe: Any, benchmarks: list[Any]) -> None:
        """Read all files of one model; of a merge without its report, the results do not count."""
        report = self.results / "merges" / f"{recipe.recipe_id}.json"
        merged = recipe.kind != "merge" or report.is_file()
        if merged and recipe.kind == "merge":
            self._merge(recipe, report)
        for benchmark in benchmarks:
            if not (merged and self._result(recipe, benchmark)):
                why = self.failures.get(recipe.recipe_id, "not made yet")
                self.missing.append((*_known_by(recipe), benchmark.label, why))

    def _merge(self, recipe: Any, path: Path) -> None:
        record = _read(path)
        if record.get("schema") != 1:
            raise Refusal(f"{path}: unknown schema {record.get('schema')!r}; {AGAIN}")
        try:
            self.norms[recipe.recipe_id] = float(record["update_norm"])
            share = record.get("rounding_share")  # a report of before knows none
            self.rounding[recipe.recipe_id] = math.nan if share is None else float(share)
        except (KeyError, TypeError, ValueError):
            raise Refusal(f"{path}: no usable update_norm or rounding_share; {AGAIN}") from None
        self._remember(recipe, "", record, record.get("warnings") or ())

    def _result(self, recipe: Any, benchmark: Any) -> bool:
        """Read one result; False where it is not there, or its answers are gone."""
        evaluation, where = evaluation_of(benchmark), (self.results, recipe.recipe_id)
        path, file = evaluation.path(*where), evaluation.answers(*where)
        if not path.is_file():
            return False
        record = _read(path)
        check_result(record, path, recipe.recipe_id, evaluation)
        if not file.is_file():
            return False
        answers = read_answers(record, path, file, benchmark.metric)
        self.answers[recipe.recipe_id, benchmark.label] = answers
        self._remember(recipe, benchmark.label, record, answers.remarks)
        return True

    def _remember(
        self, recipe: Any, label: str, record: dict[str, Any], remarks: Iterable[str]
    ) -> None:
        for remark in remarks:
            self.remarks.append((*_known_by(recipe), label, remark))
            self.found["remark", "", remark] += 1
        for key, kind in FOUND.items():
            for name, value in (record.get(key) or {}).items():
                text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                self.found[kind, name, text] += 1

    def same_items(self, recipes: pd.DataFrame, labels: list[str]) -> None:
        """Refuse two models that answered different items of one benchmark."""
        for label in labels:
            asked: dict[str, Any] = {}  # digest of the items -> the first model that answered them
            for recipe in recipes.itertuples():
                if answers := self.answers.get((recipe.recipe_id, label)):
                    asked.setdefault(answers.documents, recipe)
            if len(asked) > 1:
                first, other = (
                    f"{model_name(r)} ({r.recipe_id})" for r in list(asked.values())[:2]
                )
                raise Refusal(
                    f"{label}: {first} and {other} answered different items, so they cannot be "
                    f"compared; the benchmark's data changed in between: remove the results of one "
                    f"of them from {self.results / 'evals'} and run the study again"
                )

    def clusters(self, benchmarks: list[Any]) -> dict[str, Clusters | None]:
        """Return, by label, a number an item, the same for items that ask one question; None if none do.

        Raises:
            Refusal: the items are not those that the models answered.
        """
        found: dict[str, Clusters | None] = {}
        for benchmark in benchmarks:
            answered = next((a for (_, b), a in self.answers.items() if b == benchmark.label), None)
            if answered is None:
                found[benchmark.label] = None
                continue
            path = evaluation_of(benchmark).items(self.results)
            items = read_items(path)
            if (items.documents, len(items.doc_hash)) != (answered.documents, answered.items):
                raise Refusal(f"{path}: not the items that the models answered; {AGAIN}")
            found[benchmark.label] = items.clusters()
        return found

    def provenance(self) -> pd.DataFrame:
        """The number of files in which each version, setting and remark was found."""
        order = sorted(self.found.items(), key=lambda item: (item[0][0] == "remark", item[0]))
        rows = [(*key, count) for key, count in order]
        return pd.DataFrame(rows, columns=["kind", "name", "value", "files"])


def evaluation_of(benchmark: Any) -> Evaluation:
    """Return what was asked by a row of benchmarks.csv."""
    asked = Benchmark.model_validate({"task": benchmark.task, "metric": benchmark.metric})
    return Evaluation(asked, benchmark.evaluation_id)


def model_name(recipe: Any) -> str:
    """Return a model's name as a reader of the study knows it."""
    if recipe.kind == "base":
        return f"base {recipe.base}"
    if recipe.kind == "expert":
        return f"expert {recipe.experts} of {recipe.base}"
    return f"{recipe.variant} of {recipe.experts} on {recipe.base}"


def _known_by(recipe: Any) -> tuple[Any, ...]:
    return tuple(getattr(recipe, column) for column in MODEL)


def _gaps(missing: pd.DataFrame) -> str:
    """Name the first of the missing results, and how many there are."""
    first = next(missing.itertuples())
    text = f"no result of {model_name(first)} on {first.label} ({first.why})"
    return text + (f", and {len(missing) - 1} more results are missing" if len(missing) > 1 else "")


def _failures(folder: Path) -> dict[str, str]:
    """Return why models are not there, by recipe id, from the records that jobs leave."""
    why: dict[str, str] = {}
    for path in sorted(folder.glob("*.json")):
        if record := read_record(path):
            why |= dict.fromkeys(record.models, record.error or "its job is running")
            why |= record.failures
    return why


def _read_recipes(path: Path) -> pd.DataFrame:
    """Read recipes.csv into the order of all tables: bases as the study lists them."""
    recipes = _read_csv(path)
    recipes["n"] = recipes["n"].astype(int)
    recipes["subset"] = pd.to_numeric(recipes["subset"]).fillna(0).astype(int)
    bases, variants = list(recipes["base"].unique()), list(recipes["variant"].unique())
    keys = [
        (
            bases.index(r.base),
            KINDS.index(r.kind),
            method_order(r.method),
            variants.index(r.variant),
            r.n,
            r.subset,
        )
        for r in recipes.itertuples()
    ]
    order = sorted(range(len(recipes)), key=keys.__getitem__)
    return recipes.iloc[order].reset_index(drop=True)


def _read_benchmarks(path: Path) -> pd.DataFrame:
    """Read benchmarks.csv; what is measured twice would count twice in every mean."""
    benchmarks = _read_csv(path)
    for key in (["label"], ["evaluation_id", "metric"]):
        twice = benchmarks[benchmarks.duplicated(key, keep=False)]
        if len(twice):
            names = ", ".join(twice["label"])
            raise Refusal(f"{path}: one benchmark stands there twice ({names}); remove one")
    return benchmarks


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise Refusal(
            f"{path}: missing; make it with `snakemake tables` and the study's --configfile"
        )
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def _read(path: Path) -> dict[str, Any]:
    return read_json(path, missing="run the study again", broken=AGAIN)
