"""A benchmark as it is run, and where its results stand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wildmerge.study.file import Benchmark


@dataclass(frozen=True)
class Evaluation:
    """A benchmark with its settings and the id of everything that decides a score except the model."""

    benchmark: Benchmark
    id: str

    def path(self, results: Path, recipe_id: str) -> Path:
        """Return the result file of one model below the root of all results."""
        return results / "evals" / recipe_id / f"{self.benchmark.task}-{self.id}.json"

    def answers(self, results: Path, recipe_id: str) -> Path:
        """Return the file of one model's answers, item by item, which is written before its result."""
        return self.path(results, recipe_id).with_suffix(".parquet")

    def items(self, results: Path) -> Path:
        """Return the file of the items themselves, which all models share."""
        return results / "items" / f"{self.id}.parquet"

    def is_finished(self, results: Path, recipe_id: str) -> bool:
        """Say whether one model has a result, with its answers."""
        files = self.path(results, recipe_id), self.answers(results, recipe_id)
        return all(file.is_file() for file in files)
