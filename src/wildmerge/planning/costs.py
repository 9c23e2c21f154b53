"""Sizes of bases and tokens of benchmarks, as known before a study runs.

Sizes come from the lock, or without one from the sizes in the bases' names; tokens from finished results
of the study, else from `data/tokens.csv`, which says which of its counts are estimates.
"""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from wildmerge.checkpoints.dtypes import DTYPES
from wildmerge.planning.lock import Lock
from wildmerge.study.file import Benchmark, Study
from wildmerge.study.recipe import Recipe, recipe_id

MEMBERS = {"headqa": 2, "mmlu": 57, "leaderboard_gpqa": 3, "leaderboard_bbh": 24}
"""Tasks in the groups and tags of lm-eval 0.4.13."""
NUMBERS = ("items", "requests", "naive", "hf", "prefix")
"""What a benchmark's cost counts."""


@dataclass(frozen=True)
class Size:
    """A base: weights, bytes when merged, bytes to download with all experts, its largest tensor."""

    weights: float
    merged: float
    download: float | None
    largest: tuple[str, list[int]] | None


@dataclass(frozen=True)
class Cost:
    """A benchmark: items, requests, tokens by three ways to score them, and who says so.

    Tokens: every request in full (`naive`), distinct inputs of lm-eval's `hf`, shared prefixes once.
    """

    items: int
    requests: int
    naive: int
    hf: int
    prefix: int
    source: str

    def of(self, items: int) -> Cost:
        """Return the same for another number of items, in proportion."""
        share = items / self.items
        scaled = {name: round(share * getattr(self, name)) for name in NUMBERS}
        return replace(self, **scaled | {"items": items})

    def asked(self, backend: str) -> int:
        """Return the tokens that a backend computes."""
        return {"prefix": self.prefix, "hf": self.hf}.get(backend, self.naive)


def base_size(study: Study, name: str, lock: Lock | None) -> Size | None:
    """Return a base's size from the lock, else from a size such as 8B in its name, else None."""
    base = study.bases[name]
    locked = lock.checkpoints if lock else {}
    entries = [
        locked.get(checkpoint, {}) for checkpoint in (base.checkpoint, *base.experts.values())
    ]
    tensors = entries[0].get("tensors")
    if not tensors:
        stated = re.search(r"(\d+(?:\.\d+)?)([BM])\b", name)
        if stated is None:
            return None
        weights = float(stated[1]) * {"B": 1e9, "M": 1e6}[stated[2]]
        return Size(weights, 2 * weights, None, None)
    numels = {tensor: math.prod(shape) for tensor, (_, shape) in tensors.items()}
    merged = sum(
        numels[tensor] * (DTYPES[dtype].itemsize if dtype in DTYPES else 1)
        for tensor, (dtype, _) in tensors.items()
    )
    largest = max(numels, key=lambda tensor: numels[tensor])
    download = sum(file["size"] for e in entries if e.get("repo") for file in e["files"].values())
    return Size(sum(numels.values()), merged, download, (largest, tensors[largest][1]))


def benchmark_cost(
    study: Study, benchmark: Benchmark, lock: Lock | None, results: Path
) -> Cost | None:
    """Return a benchmark's tokens: as counted in a finished result, else as recorded, else None."""
    recorded = _recorded().get(benchmark.task)
    cost = _counted(study, benchmark, lock, results) or recorded
    if cost is None:
        return None
    items = (recorded or cost).items
    if benchmark.limit:  # lm-eval limits each member of a group
        items = min(items, benchmark.limit * MEMBERS.get(benchmark.task, 1))
    return cost.of(items)


def _recorded() -> dict[str, Cost]:
    """Return the committed counts by task."""
    table = resources.files("wildmerge").joinpath("data/tokens.csv").read_text(encoding="utf-8")
    return {
        row["task"]: Cost(**{n: int(row[n]) for n in NUMBERS}, source=row["source"])
        for row in csv.DictReader(table.splitlines())
    }


def _counted(study: Study, benchmark: Benchmark, lock: Lock | None, results: Path) -> Cost | None:
    """Return the counts of the finished result with the most items, of any of the study's bases."""
    found: list[Cost] = []
    for name, base in study.bases.items():
        if lock is None or base.checkpoint not in lock.checkpoints:
            continue
        model = recipe_id(Recipe(base=base.checkpoint), lock.identities)
        for path in (results / "evals" / model).glob(f"{benchmark.task}-*.json"):
            result = json.loads(path.read_text())
            tokens = result.get("tokens", {})
            if tokens.get("naive"):
                naive = tokens["naive"]
                counts = (naive, tokens.get("grouped") or naive, tokens["computed"])
                source = f"counted on {result['n']:,} items with {name}"
                found.append(Cost(result["n"], tokens["requests"], *counts, source))
    return max(found, key=lambda cost: cost.items, default=None)
