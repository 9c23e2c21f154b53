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
