"""Aggregate a made-up study of the paper's size: seconds, peak memory and bytes on disk.

    python benchmarks/aggregation.py [--bases 4] [--work results/benchmarks/aggregation]

652 models of each base (12 experts, eight variants, n = 2 to 12, and one value of a hyperparameter)
answer the paper's sixteen benchmarks, 84,000 items, at random with a skill of their own. What is written
stays and is not written again; `wildmerge aggregate` runs as a process of its own.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from math import comb
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from wildmerge.scoring.items import write_answers, write_items
from wildmerge.scoring.result import SCHEMA
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark
from wildmerge.tasks.questions import Asked, Item

TOKENS = Path(__file__).parents[1] / "src/wildmerge/data/tokens.csv"
EXPERTS = [f"expert{i:02}" for i in range(12)]
VARIANTS = ["task_arithmetic", "task_arithmetic scale=sum", "ties", "model_stock", "tsv_m", "iso_c"]
VARIANTS += ["task_arithmetic_sb", "ties_sb"]
MANY, FEW = (2, 4, 6, 8, 10, 12), (2, 4, 12)


def digest(*parts: object) -> str:
    """Return 16 hex digits of some names."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def recipes(base: str) -> list[dict[str, object]]:
    """Return the models of one base as recipes.csv lists them."""
    generator = np.random.default_rng(0)
    rows: list[tuple[str, str, int, object, str]] = [("base", "", 0, "", "")]
    rows += [("expert", "", 1, i, expert) for i, expert in enumerate(EXPERTS)]
    sizes = [(variant, MANY) for variant in VARIANTS] + [("ties density=0.5", FEW)]
    for variant, ns in sizes:
        for n in ns:
            for subset in range(min(15, comb(12, n))):
                members = "+".join(sorted(generator.choice(EXPERTS, n, replace=False)))
                rows.append(("merge", variant, n, subset, members))
    return [
        {
            **{"recipe_id": digest(base, *row), "kind": row[0], "base": base, "variant": row[1]},
            **{"method": row[1].partition(" ")[0], "parameters": "{}", "n": row[2]},
            **{"subset": row[3], "experts": row[4]},
        }
        for row in rows
    ]


def write_model(
    results: Path, recipe: dict[str, object], asked: list[Evaluation], counts: dict[str, int]
) -> None:
    """Write one model's results and, of a merge, its report."""
    model = str(recipe["recipe_id"])
    generator = np.random.default_rng(int(model, 16))
    for evaluation in asked:
        path, count = evaluation.path(results, model), counts[evaluation.benchmark.task]
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        right = (generator.random(count) < 0.55 + 0.1 * generator.random()).astype(float)  # noqa: PLR2004
        likelihoods = generator.normal(-40, 15, (2, count))
        write_answers(evaluation.answers(results, model), {"acc": right}, *likelihoods)
        summary = {"score": float(right.mean()), "stderr": float(right.std() / count**0.5)}
        record = {
            **{"schema": SCHEMA, "model": model, "task": evaluation.benchmark.task, "n": count},
            **{"evaluation_id": evaluation.id, "chance": 0.25, "metrics": {"acc": summary}},
            **{"documents": digest(evaluation.id), "versions": {}, "settings": {}},
            "scored_by": {"backend": "prefix", "fallback": None},
        }
        path.write_text(json.dumps(record))
    if recipe["kind"] == "merge":
        (results / "merges").mkdir(exist_ok=True)
        report = {"schema": 1, "update_norm": 1.0, "warnings": []}
        (results / f"merges/{model}.json").write_text(json.dumps(report))


def write_study(results: Path, bases: int) -> int:
    """Write the study; return its number of models."""
    counts = dict(pd.read_csv(TOKENS)[["task", "items"]].itertuples(index=False))
    asked = [Evaluation(Benchmark(task=task), digest(task)) for task in counts]
    for evaluation in asked:
        hashes = [digest(evaluation.id, i) for i in range(counts[evaluation.benchmark.task])]
        items = [Item(evaluation.benchmark.task, h, h, (0,), 4, 1) for h in hashes]
        write_items(evaluation.items(results), Asked(digest(evaluation.id), tuple(items)))
    models = [recipe for i in range(bases) for recipe in recipes(f"base{i}")]
    for recipe in tqdm(models, desc="writing results", unit="model", disable=None):
        write_model(results, recipe, asked, counts)
    (results / "made-up").mkdir(parents=True, exist_ok=True)
    pd.DataFrame(models).to_csv(results / "made-up/recipes.csv", index=False)
    rows = [
        {
            "task": e.benchmark.task,
            "label": e.benchmark.task,
            "metric": "acc",
            "evaluation_id": e.id,
        }
        | {"num_fewshot": "", "limit": ""}
        for e in asked
    ]
    pd.DataFrame(rows).to_csv(results / "made-up/benchmarks.csv", index=False)
    print(f"{len(models):,} models, {sum(counts.values()):,} items")
    return len(models)


def main() -> None:
    """Write the study where it is not yet there, aggregate it, and print what that took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", type=int, default=4)
    parser.add_argument("--work", type=Path, default=Path("results/benchmarks/aggregation"))
    given = parser.parse_args()
    write_study(given.work, given.bases)
    files = [path for path in given.work.rglob("*.parquet") if "evals" in path.parts]
    size = sum(path.stat().st_size for path in files)
    start = time.perf_counter()
    command = ["wildmerge", "aggregate", "--study", "made-up", "--results", str(given.work)]
    subprocess.run(command, check=True, env=os.environ)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (
        1 if sys.platform == "darwin" else 1024
    )
    print(f"answers on disk: {size / 1e9:.2f} GB in {len(files):,} files")
    print(f"aggregate: {seconds:.0f} s, {peak / 1024:.2f} GB of memory at most")


if __name__ == "__main__":
    main()
