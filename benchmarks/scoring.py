"""Time the prefix backend against lm-eval's hf backend, in turn, on a model and real benchmarks.

    python benchmarks/scoring.py --model DIR --data DIR [--bigbench bigbench-1.0.0.tar.gz]
        [--items 40] [--rounds 3] [--dtype float32]

Both score the same requests in one process, in turn, each round another part of the items; the hf
backend at the batch size that proved fastest for it on the benchmark's first requests. Prints, per
benchmark: tokens a naive run computes, tokens the hf backend and the prefix backend compute, how many
times less CPU and wall time the prefix backend takes (median over rounds), both accuracies, items that
are answered differently, and the largest difference of a log-likelihood. `--json FILE` keeps the
numbers.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lm_eval.models.huggingface import HFLM

from wildmerge.scoring.prefix.backend import PrefixLM, TokenCounts
from wildmerge.tasks.data import on_local_data
from wildmerge.tasks.index import tasks_index
from wildmerge.tasks.loading import SEEDS
from wildmerge.tasks.manager import make_manager

MMLU = ["mmlu_anatomy", "mmlu_econometrics"]
# label, stock task, number of examples in the prompt, whether all items have the same examples
BENCHMARKS = [
    ("ARC-Easy", "arc_easy", 0, False),
    ("ARC-Easy, 5 examples", "arc_easy", 5, False),
    ("ARC-Easy, 3 fixed examples", "arc_easy", 3, True),
    ("ARC-Challenge", "arc_challenge", 0, False),
    ("HellaSwag", "hellaswag", 0, False),
    ("PIQA", "piqa", 0, False),
    ("OpenBookQA", "openbookqa", 0, False),
    ("BoolQ", "boolq", 0, False),
    ("WinoGrande", "winogrande", 0, False),
    ("CommonsenseQA", "commonsense_qa", 0, False),
    ("MedMCQA", "medmcqa", 0, False),
    ("mmlu_high_school_us_history", "mmlu_high_school_us_history", 0, True),  # long passages
    *((f"{task}", task, 0, True) for task in MMLU),
    *((f"{task}, 5 fixed examples", task, 5, True) for task in MMLU),
]
BIG_BENCH = ["date_understanding", "movie_recommendation", "disambiguation_qa"]
BATCH_SIZES = (1, 4, 16)


def main() -> None:
    """Run the comparison and print it as a table."""
    options = parse_options()
    torch.set_num_threads(options.threads)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    known = BENCHMARKS + [big_bench_entry(name) for name in BIG_BENCH if options.bigbench]
    chosen = [b for b in known if any(part in b[0] for part in options.only.split("+"))]
    tasks = load_tasks(chosen, options.data, options.bigbench)
    arguments = {"dtype": options.dtype, "device": options.device}
    hf = HFLM(options.model, **arguments)
    with tempfile.TemporaryDirectory() as store:
        prefix = PrefixLM(hf.model, tokenizer=hf.tokenizer, store=store, on_scored=lambda n: None)
        if prefix.fallback_reason:
            raise SystemExit(f"not packable: {prefix.fallback_reason}")
        rows = []
        print(HEADER)
        for benchmark in chosen:
            rows.append(compare(benchmark[0], tasks[benchmark], hf, prefix, options))
            print(line(rows[-1]), flush=True)
    for kind in ("cpu_ratio", "wall_ratio"):
        mean = statistics.geometric_mean(row[kind] for row in rows)
        print(f"geometric mean {kind.replace('_', ' ')}: {mean:.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps({**vars(options), "rows": rows}, indent=1) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--data", required=True, help="folder <task>/<split>.jsonl")
    parser.add_argument("--bigbench", help="source archive of the bigbench package")
    parser.add_argument("--items", type=int, default=40, help="items a benchmark")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--only", default="", help="parts of labels, joined by +")
    parser.add_argument("--tune-on", type=int, default=64, help="requests to choose hf's batch on")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=BATCH_SIZES)
    parser.add_argument("--json", help="file for the numbers")
    return parser.parse_args()


def big_bench_entry(name: str) -> tuple[str, str, int, bool]:
    """Return the line of a BIG-bench task: three fixed examples, as in BIG-bench Hard."""
    return (f"BIG-bench {name}, 3 fixed examples", f"bigbench_{name}", 3, True)


def write_big_bench(archive: str, folder: Path) -> None:
    """Write lm-eval tasks and their data from the archive: three items are examples, the rest asked."""
    with tarfile.open(archive) as members:
        for name in BIG_BENCH:
            task = f"bigbench_{name}"
            path = f"bigbench-1.0.0/bigbench/benchmark_tasks/{name}/task.json"
            examples = json.load(members.extractfile(path))["examples"]
            docs = [
                {
                    "input": example["input"],
                    "choices": list(example["target_scores"]),
                    "gold": max(range(len(scores)), key=scores.__getitem__),
                }
                for example in examples
                if (scores := list(example["target_scores"].values()))
            ]
            files = {"dev": docs[:3], "test": docs[3:]}
            for split, part in files.items():
                lines = "".join(json.dumps(doc) + "\n" for doc in part)
                (folder / f"{task}-{split}.jsonl").write_text(lines)
            content = {
                "task": task,
                "dataset_path": "json",
                "dataset_kwargs": {
                    "data_files": {s: str(folder / f"{task}-{s}.jsonl") for s in files}
                },
                "output_type": "multiple_choice",
                "test_split": "test",
                "fewshot_split": "dev",
                "doc_to_text": "Q: {{input}}\nA:",
                "doc_to_choice": "{{choices}}",
                "doc_to_target": "{{gold}}",
                "metric_list": [{"metric": "acc"}],
            }
            (folder / f"{task}.yaml").write_text(yaml.safe_dump(content))


def load_tasks(
    benchmarks: list[tuple[str, str, int, bool]], data: str, archive: str | None = None
) -> dict[Any, Any]:
    """Return lm-eval's task objects, reading local data."""
    loaded = {}
    with tempfile.TemporaryDirectory() as scratch:
        if archive:
            write_big_bench(archive, Path(scratch))
        for benchmark in benchmarks:
            _, name, examples, fixed = benchmark
            first = (
                {"fewshot_config": {"sampler": "first_n"}} if fixed and "mmlu" not in name else {}
            )
            manager = make_manager(
                tasks_index(scratch), lambda config, more=first: on_local_data(config, data) | more
            )
            task = manager.load([name])["tasks"][name]
            task.set_config("num_fewshot", examples)
            task.set_fewshot_seed(SEEDS["fewshot"])
            loaded[benchmark] = task
    return loaded


def compare(
    label: str, task: Any, hf: HFLM, prefix: PrefixLM, options: argparse.Namespace
) -> dict[str, Any]:
    """Score one benchmark with both backends in turn and return the numbers of one line."""
    task.build_all_requests(limit=options.items, rank=0, world_size=1)
    requests = task.instances
    started = time.perf_counter()
    tuning = {}
    for size in options.batch_sizes:
        hf.batch_size_per_gpu = size
        tuning[size] = timed(hf, requests[: options.tune_on])[1]
    hf.batch_size_per_gpu = min(tuning, key=tuning.get)
    prefix.counts = TokenCounts()
    rounds = [
        (*timed(prefix, part), *timed(hf, part)) for part in parts_of(requests, options.rounds)
    ]
    ours, theirs = ([score for r in rounds for score in r[i]] for i in (0, 3))
    right = [accuracy(task, requests, scores) for scores in (ours, theirs)]
    gap = max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True))
    return {
        "label": label,
        "items": len(right[0]),
        "naive": prefix.counts.naive,
        "hf": prefix.counts.grouped,
        "computed": prefix.counts.computed,
        "batch_size": hf.batch_size_per_gpu,
        "cpu_ratio": statistics.median(r[4] / r[1] for r in rounds),
        "wall_ratio": statistics.median(r[5] / r[2] for r in rounds),
        "cpu_seconds": [statistics.median(r[i] for r in rounds) for i in (1, 4)],
        "accuracy": [float(np.mean(values)) for values in right],
        "different": int(np.sum(np.array(right[0]) != np.array(right[1]))),
        "largest_gap": gap,
        "seconds": time.perf_counter() - started,
    }


def parts_of(requests: list[Any], count: int) -> list[list[Any]]:
    """Split requests into parts of as many items each, one a round; items stay whole."""
    docs = sorted({request.doc_id for request in requests})
    size = -(-len(docs) // count)
    return [
        [r for r in requests if r.doc_id in docs[start : start + size]]
        for start in range(0, len(docs), size)
    ]


def timed(lm: HFLM, requests: list[Any]) -> tuple[list[tuple[float, bool]], float, float]:
    """Return scores, CPU seconds and wall seconds of one run over the requests."""
    wall, cpu = time.perf_counter(), time.process_time()
    scores = lm.loglikelihood(requests, disable_tqdm=True)
    if lm.device.type == "cuda":
        torch.cuda.synchronize(lm.device)
    return scores, time.process_time() - cpu, time.perf_counter() - wall


def accuracy(task: Any, requests: list[Any], scores: list[tuple[float, bool]]) -> list[float]:
    """Return lm-eval's accuracy of each item."""
    items: dict[int, list[int]] = {}
    for index, request in enumerate(requests):
        items.setdefault(request.doc_id, []).append(index)
    return [
        float(task.process_results(requests[own[0]].doc, [scores[i] for i in own])["acc"])
        for own in items.values()
    ]


HEADER = (
    f"{'benchmark':44} {'items':>5} {'naive':>8} {'hf':>8} {'computed':>8} {'batch':>5} "
    f"{'CPU':>6} {'wall':>6} {'acc':>6} {'acc hf':>6} {'differ':>6} {'max gap':>8}"
)


def line(row: dict[str, Any]) -> str:
    """Return one line of the table."""
    ours, theirs = row["accuracy"]
    assert math.isfinite(row["largest_gap"])
    return (
        f"{row['label']:44} {row['items']:5} {row['naive']:8} {row['hf']:8} {row['computed']:8} "
        f"{row['batch_size']:5} {row['cpu_ratio']:5.2f}x {row['wall_ratio']:5.2f}x {ours:6.3f} "
        f"{theirs:6.3f} {row['different']:6} {row['largest_gap']:8.1e}"
    )


if __name__ == "__main__":
    main()
