"""Reading what a study's jobs left behind: recipes, benchmarks, evaluations and merge reports.

This is the only reader of `results/evals` and `results/merges`; everything after it works on the
tables. A result that is missing or unreadable is refused with the command that makes it.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from wildmerge.errors import Refusal
from wildmerge.reporting.appearance import method_order
from wildmerge.statistics.estimates import combined_stderr, paired_stderr, stderr_of_mean

KINDS = ("base", "expert", "merge")


@dataclass(frozen=True)
class Answers:
    """One model's result on one benchmark; `correct` holds 0 or 1 an item, (items,) int8."""

    score: float
    stderr: float
    chance: float
    items: int
    correct: np.ndarray = field(repr=False)
    item_digest: str


@dataclass(frozen=True)
class Results:
    """A study's results: its recipe and benchmark tables, and what was measured for each."""

    recipes: pd.DataFrame
    benchmarks: pd.DataFrame
    evaluations: dict[tuple[str, str], Answers]  # by (recipe id, task)
    update_norms: dict[str, float]  # by recipe id, merges only
    provenance: pd.DataFrame  # kind, name, value, files

    @property
    def tasks(self) -> list[str]:
        """The names of the study's benchmarks."""
        return list(self.benchmarks["task"])

    def accuracy(self, recipe_id: str, tasks: list[str]) -> float:
        """Return a model's unweighted mean score over benchmarks (0 to 1)."""
        return fmean([self.evaluations[recipe_id, task].score for task in tasks])

    def stderr(self, recipe_id: str, tasks: list[str]) -> float:
        """Return the standard error of `accuracy`, from the draw of items."""
        return stderr_of_mean([self.evaluations[recipe_id, task].stderr for task in tasks])


def collect(results: Path, study: str) -> Results:
    """Read all results of a study.

    Args:
        results: the results directory, which holds `<study>/`, `evals/` and `merges/`.
        study: the study's name.

    Returns:
        Its results, recipes sorted by base, kind, method, variant, size and subset.

    Raises:
        Refusal: if a file is missing or unreadable; the message names the model, the benchmark and
            the command that makes it.
    """
    recipes = _read_recipes(
        _existing(results / study / "recipes.csv", "the study's recipes", study)
    )
    benchmarks = pd.read_csv(
        _existing(results / study / "benchmarks.csv", "the study's benchmarks", study),
        dtype=str,
        keep_default_na=False,
    )
    evaluations, norms, found = {}, {}, _Found()
    for recipe in recipes.itertuples():
        for benchmark in benchmarks.itertuples():
            name = f"{benchmark.task}-{benchmark.evaluation_id}.json"
            path = results / "evals" / recipe.recipe_id / name
            record = _read(path, f"the result of {_name(recipe)} on {benchmark.label}", study)
            evaluations[recipe.recipe_id, benchmark.task] = _evaluation(record, path)
            found.add(record, ("versions", "settings"))
        if recipe.kind == "merge":
            path = results / "merges" / f"{recipe.recipe_id}.json"
            record = _read(path, f"the merge report of {_name(recipe)}", study)
            norms[recipe.recipe_id] = _update_norm(record, path)
            found.add(record, ("versions", "warnings"))
    return Results(recipes, benchmarks, evaluations, norms, found.table())


def difference_stderr(models: list[Answers], reference: Answers) -> float:
    """Return the standard error of (mean score of the models - reference score) on one benchmark.

    All models answer the same items, so the difference is taken item by item: most of the luck of
    the draw of items cancels. Where items differ, the errors are added as if independent.

    Args:
        models: evaluations of one or more models on this benchmark.
        reference: the evaluation they are compared with.

    Returns:
        The standard error as a share (0 to 1).
    """
    if len(reference.correct) < 2 or any(
        model.item_digest != reference.item_digest for model in models
    ):
        return combined_stderr(max(model.stderr for model in models), reference.stderr)
    return paired_stderr([model.correct for model in models], reference.correct)


class _Found:
    """Counts the files in which each version, setting and warning was found."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str, str], int] = {}

    def add(self, record: dict[str, Any], keys: tuple[str, ...]) -> None:
        for kind in keys:
            entries = record.get(kind) or {}
            pairs = (
                entries.items() if isinstance(entries, dict) else [("", text) for text in entries]
            )
            for name, value in pairs:
                text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
                key = (kind.removesuffix("s"), str(name), text)
                self.files[key] = self.files.get(key, 0) + 1

    def table(self) -> pd.DataFrame:
        rows = [(*key, count) for key, count in sorted(self.files.items())]  # warnings sort last
        return pd.DataFrame(rows, columns=["kind", "name", "value", "files"])


def _read_recipes(path: Path) -> pd.DataFrame:
    """Read recipes.csv into the order of all tables: bases as the study lists them."""
    recipes = pd.read_csv(path, dtype=str, keep_default_na=False)
    recipes["n"] = recipes["n"].astype(int)
    recipes["subset"] = pd.to_numeric(recipes["subset"]).fillna(0).astype(int)
    bases, variants = list(recipes["base"].unique()), list(recipes["variant"].unique())
    keys = [
        (
            bases.index(r.base),
            KINDS.index(r.kind),
            method_order(r.method),
            variants.index(r.variant),
        )
        for r in recipes.itertuples()
    ]
    order = sorted(
        range(len(recipes)), key=lambda i: (keys[i], recipes["n"].iat[i], recipes["subset"].iat[i])
    )
    return recipes.iloc[order].reset_index(drop=True)


def _name(recipe: Any) -> str:
    """Return a model's name as a reader of the study knows it."""
    if recipe.kind == "base":
        return f"base {recipe.base}"
    if recipe.kind == "expert":
        return f"expert {recipe.experts} of {recipe.base}"
    return f"{recipe.variant} of {recipe.experts} on {recipe.base}"


def _existing(path: Path, what: str, study: str) -> Path:
    if not path.is_file():
        raise Refusal(
            f"{what} is missing: no file {path}; make it with "
            f"`snakemake --profile profiles/default --config study=config/{study}.yaml "
            f"--forcerun models`, which computes only what is missing"
        )
    return path


def _read(path: Path, what: str, study: str) -> dict[str, Any]:
    try:
        record = json.loads(_existing(path, what, study).read_bytes())
    except ValueError as error:
        raise Refusal(f"{what} is not JSON: {path} ({error}); delete it and run again") from error
    if not isinstance(record, dict) or record.get("schema") != 1:
        raise Refusal(f"{what} has an unknown schema: {path}; delete it and run again")
    return record


def _evaluation(record: dict[str, Any], path: Path) -> Answers:
    try:
        items = record.get("items") or {}
        return Answers(
            score=float(record["score"]),
            stderr=float(record["stderr"]),
            chance=float(record["chance"]),
            items=int(record["n"]),
            correct=np.asarray(items.get("correct", []), dtype=np.int8),
            item_digest=hashlib.sha256("\n".join(items.get("doc_hash", [])).encode()).hexdigest(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{path} lacks a usable {error}; delete it and run again") from error


def _update_norm(record: dict[str, Any], path: Path) -> float:
    try:
        return float(record["update_norm"])
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{path} lacks a usable update_norm; delete it and run again") from error
