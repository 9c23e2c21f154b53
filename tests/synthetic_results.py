"""A made-up study's results tree, small enough to build in a test and shaped like a real one.

Every model answers every item by a seeded coin whose bias depends on base, method, size and
benchmark, so that curves rise and fall as the paper describes.
"""

import csv
import hashlib
import itertools
import json
import random
import statistics
import zlib
from pathlib import Path
from typing import Any

from wildmerge.scoring.items import share_items, write_answers
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark
from wildmerge.tasks.questions import Asked, Item

BASES = ("tiny-llama", "tiny-qwen3")
EXPERTS = ("arithmetic", "brackets", "copying", "dates", "letters", "sorting")
TASKS = {
    "addition": 0.25,
    "bracket_depth": 0.25,
    "copy_span": 0.25,
    "date_order": 0.5,
    "letter_count": 0.2,
    "sort_words": 0.25,
}
VARIANTS = {
    "task_arithmetic": {"lambda": 1.0, "scale": "mean"},
    "ties": {"density": 0.1, "lambda": 1.0},
    "ties density=0.2": {"density": 0.2, "lambda": 1.0},
    "model_stock": {},
    "tsv_m": {"lambda": 1.0},
    "iso_c": {"lambda": 1.0},
    "task_arithmetic_sb": {"lambda": 1.0, "beta": 0.2},
    "ties_sb": {"density": 0.1, "beta": 0.2},
}
SIZES = {2: 2, 4: 2, 6: 1}
GAINS = {  # share gained at the smallest and the largest size
    "task_arithmetic": (0.01, 0.06),
    "ties": (0.02, -0.03),
    "model_stock": (0.01, 0.015),
    "tsv_m": (0.03, -0.06),
    "iso_c": (0.02, -0.09),
    "task_arithmetic_sb": (-0.04, 0.05),
    "ties_sb": (-0.08, -0.14),
}


def build(
    results: Path,
    study: str = "demo",
    *,
    bases: tuple[str, ...] = BASES,
    experts: tuple[str, ...] = EXPERTS,
    tasks: dict[str, float] = TASKS,
    variants: dict[str, dict[str, Any]] = VARIANTS,
    sizes: dict[int, int] = SIZES,
    items: int | dict[str, int] = 200,
) -> Path:
    """Write the results of a study and return its directory, `results/<study>`."""
    counts = items if isinstance(items, dict) else dict.fromkeys(tasks, items)
    recipes = [
        recipe
        for base in bases
        for recipe in _recipes(base, experts=experts, variants=variants, sizes=sizes)
    ]
    benchmarks = [
        {
            "task": task,
            "label": task.replace("_", " ").capitalize(),
            "metric": "acc",
            "num_fewshot": 0,
            "limit": counts[task],
            "evaluation_id": _digest(task),
        }
        for task in tasks
    ]
    _write_csv(results / study / "recipes.csv", recipes)
    _write_csv(results / study / "benchmarks.csv", benchmarks)
    for base in bases:
        write_inspection(results / study, base, experts)
        write_geometry(results / study, base, experts)
    for recipe, benchmark in itertools.product(recipes, benchmarks):
        answers = _answers(recipe, benchmark["task"], tasks, counts[benchmark["task"]])
        write_evaluation(results, recipe, benchmark, answers)
    for recipe in recipes:
        if recipe["kind"] == "merge":
            write_merge_report(results, recipe, _norm(recipe))
    return results / study


def build_poor(results: Path) -> Path:
    """Write the results of a study that shows next to nothing, and return the results' directory.

    One expert (the other was not scored), a method whose models failed, a benchmark of one item, and all
    accuracies equal.
    """
    counts = {"addition": 40, "date_order": 1}
    study = build(
        results,
        bases=("mine",),
        experts=("first", "second"),
        tasks={task: TASKS[task] for task in counts},
        variants={"task_arithmetic": {}, "ties": {}},
        sizes={2: 1},
        items=counts,
    )
    with (study / "recipes.csv").open(newline="") as stream:
        recipes = list(csv.DictReader(stream))
    for recipe in recipes:
        failed = recipe["method"] == "ties" or recipe["experts"] == "second"
        for path in (results / "evals" / recipe["recipe_id"]).glob("*.json"):
            if failed:
                path.unlink()
            else:
                change_answers(path, acc=[1] if "date_order" in path.name else [1, 0] * 20)
    return results


def write_inspection(study: Path, base: str, experts: tuple[str, ...]) -> None:
    """Write what inspecting a base's experts found: they merge, one after a skipped one."""
    found = {"merges": "yes", "distance": 1.5, "relative": 0.01, "remarks": "", "refusal": ""}
    rows = [{"expert": expert} | found for expert in experts]
    why = {"merges": "skipped", "distance": "", "relative": "", "refusal": "model_type 'other'"}
    _write_csv(study / f"inspect/{base}.csv", [*rows, {"expert": "<odd>"} | found | why])


def write_geometry(study: Path, base: str, experts: tuple[str, ...]) -> None:
    """Write measures of a base's task vectors, as `wildmerge geometry` does."""
    rows = []
    for part, on in {"all": "all 9,000 weights", "kind mlp": "all 6,000 weights"}.items():
        shared = {"part": part, "measured_on": on}
        rows += [
            {"measure": "norm", "expert": e, "other": "", "number": 1.5} | shared for e in experts
        ]
        for a, b in itertools.combinations(experts, 2):
            pair = {"expert": b, "other": a} | shared
            rows += [{"measure": "cosine", "number": 0.25} | pair]
            rows += [{"measure": "sign_conflict", "number": 0.4} | pair]
    columns = ("measure", "expert", "other", "part", "number", "measured_on")
    _write_csv(study / f"geometry/{base}.csv", [{c: row[c] for c in columns} for row in rows])


def write_evaluation(
    results: Path, recipe: dict[str, Any], benchmark: dict[str, Any], correct: list[float]
) -> Path:
    """Write one result from its items' values, most often 0 or 1."""
    task = benchmark["task"]
    asked = Evaluation(Benchmark(task=task), benchmark["evaluation_id"])
    where = results, recipe["recipe_id"]
    record = {
        "schema": 3,
        "model": recipe["recipe_id"],
        "task": task,
        "evaluation_id": asked.id,
        "n": len(correct),
        "chance": TASKS.get(task, 0.25),
        "metrics": {benchmark["metric"]: summary(correct)},
        "documents": _digest(f"documents of {task}"),
        "scored_by": {"backend": "hf", "fallback": None},
        "settings": {"backend": "hf", "dtype": "float32"},
        "versions": {"lm_eval": "0.4.13", "torch": "2.13.0"},
    }
    share_items(asked.items(results), asked_of(task, len(correct)))
    _write_answers(asked.answers(*where), {benchmark["metric"]: correct})
    return _write_json(asked.path(*where), record)


def asked_of(task: str, count: int) -> Asked:
    """Return made-up items of a task."""
    hashes = [_digest(f"{task}{number}") for number in range(count)]
    items = [Item(task, digest, digest, (0,), 4, 1) for digest in hashes]
    return Asked(_digest(f"documents of {task}"), tuple(items))


def change_answers(path: Path, **metrics: list[float]) -> None:
    """Give a result other metrics or values of them."""
    record = json.loads(path.read_text())
    _write_answers(path.with_suffix(".parquet"), metrics)
    record["metrics"] = {metric: summary(values) for metric, values in metrics.items()}
    path.write_text(json.dumps(record))


def summary(values: list[float]) -> dict[str, float]:
    """Return mean and standard error of the values."""
    mean = sum(values) / len(values)
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"score": mean, "stderr": deviation / len(values) ** 0.5}


def _write_answers(path: Path, metrics: dict[str, list[float]]) -> None:
    count = len(next(iter(metrics.values())))
    write_answers(path, metrics, [-1.5] * count, [-2.0] * count)


def write_merge_report(results: Path, recipe: dict[str, Any], norm: float) -> Path:
    """Write one merge report."""
    record = {
        "schema": 1,
        "recipe": {"method": recipe["method"], "parameters": json.loads(recipe["parameters"])},
        "update_norm": norm,
        "tensors": {},
        "warnings": [],
        "seconds": 0.1,
    }
    return _write_json(results / "merges" / f"{recipe['recipe_id']}.json", record)


def _recipes(
    base: str,
    *,
    experts: tuple[str, ...],
    variants: dict[str, dict[str, Any]],
    sizes: dict[int, int],
) -> list[dict[str, Any]]:
    rows = [_recipe(base, "base", "", {}, (), "")]
    rows += [_recipe(base, "expert", "", {}, (expert,), i) for i, expert in enumerate(experts)]
    for (variant, parameters), (n, count) in itertools.product(variants.items(), sizes.items()):
        draw = random.Random(n)
        for subset in range(count):
            members = tuple(sorted(draw.sample(experts, n)))
            rows.append(_recipe(base, "merge", variant, parameters, members, subset))
    return rows


def _recipe(  # noqa: PLR0917 - the columns of recipes.csv
    base: str,
    kind: str,
    variant: str,
    parameters: dict[str, Any],
    experts: tuple[str, ...],
    subset: int | str,
) -> dict[str, Any]:
    return {
        "recipe_id": _digest(f"{base}{kind}{variant}{experts}{subset}"),
        "kind": kind,
        "base": base,
        "variant": variant,
        "method": variant.partition(" ")[0],
        "parameters": json.dumps(parameters, sort_keys=True),
        "n": len(experts),
        "subset": subset,
        "experts": "+".join(experts),
    }


def _answers(recipe: dict[str, Any], task: str, tasks: dict[str, float], items: int) -> list[int]:
    """Answer all items: items have a difficulty, shared by all models, and models a skill."""
    skill = tasks[task] + 0.3 + 0.05 * (zlib.crc32(f"{recipe['base']}{task}".encode()) % 5 - 2)
    position = list(tasks).index(task)
    if recipe["kind"] == "expert":
        trained = EXPERTS.index(recipe["experts"]) if recipe["experts"] in EXPERTS else 0
        skill += {0: 0.2, 1: 0.02}.get((position - trained) % len(tasks), -0.09)
    if recipe["kind"] == "merge":
        low, high = GAINS.get(recipe["method"], (0.0, 0.02))
        skill += low + (high - low) * (int(recipe["n"]) - 2) / 4
        skill += 0.01 if "0.2" in recipe["variant"] else 0.0
    difficulty = random.Random(f"items of {task}")
    noise = random.Random(recipe["recipe_id"] + task)
    return [int(skill > 0.8 * difficulty.random() + 0.2 * noise.random()) for _ in range(items)]


def _norm(recipe: dict[str, Any]) -> float:
    scale = {
        "iso_c": 40,
        "tsv_m": 25,
        "ties": 6,
        "ties_sb": 70,
        "task_arithmetic_sb": 5,
        "model_stock": 1,
    }
    direction = 1 if recipe["method"] in {"iso_c", "tsv_m", "ties", "ties_sb"} else -1
    return scale.get(recipe["method"], 2) * (int(recipe["n"]) / 2) ** (0.5 * direction)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, record: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path
