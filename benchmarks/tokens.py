"""Tokens that scoring one model on the paper's sixteen benchmarks takes: lm-eval `vllm`, `hf`, ours.

Counted from the benchmarks' real requests where their data are in --data (<task>/<split>.jsonl, in the
schema that lm-eval's stock task reads), else from the recorded shape of the benchmark. Nothing is run
through a model; passes are planned as for Qwen3-8B on a GPU.

    python benchmarks/tokens.py --tokenizer MODEL --data DIR --out src/wildmerge/data/tokens.csv

Columns:
    naive   every request's whole prompt, as lm-eval `vllm` runs it
    hf      distinct inputs of lm-eval `hf`, padding not counted
    prefix  tokens that our passes run
    source  measured (real requests) or estimated (shape)
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from wildmerge.scoring.prefix.memory import pass_costs
from wildmerge.scoring.prefix.request_tree import plan_passes
from wildmerge.scoring.prefix.requests import TokenRequests, tokenise
from wildmerge.storage.files import write_atomically
from wildmerge.study.file import Benchmark
from wildmerge.tasks.definitions import members_of
from wildmerge.tasks.index import stock_tasks
from wildmerge.tasks.loading import SEEDS, Loader

BENCHMARKS = (
    "arc_easy arc_challenge hellaswag winogrande boolq piqa openbookqa commonsense_qa headqa prost "
    "truthfulqa_mc1 mmlu medmcqa leaderboard_gpqa leaderboard_bbh leaderboard_mmlu_pro"
).split()
CONTEXT = 40960
BUDGET = 64 * 2**30  # bytes for the tokens of a pass, of a GPU with 80 GB
COLUMNS = ("task", "items", "requests", "naive", "hf", "prefix", "source")


class Shape(NamedTuple):
    """A benchmark by its published numbers: items and choices, and typical lengths in tokens."""

    items: int
    choices: int
    question: int
    choice: int


SHAPES = {
    "headqa": Shape(2 * 2742, 4, 34, 12),  # English and Spanish test sets
    "leaderboard_gpqa": Shape(198 + 448 + 546, 4, 300, 4),  # diamond, main, extended
}


def main() -> None:
    """Count, write the CSV and print it with its totals."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--tokenizer", required=True, help="model directory")
    parser.add_argument("--data", required=True, help="folder <task>/<split>.jsonl")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    options = parser.parse_args()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    reader = SimpleNamespace(
        tokenizer=tokenizer, add_bos_token=None, prefix_token_id=tokenizer.eos_token_id
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(QWEN3_8B, dtype=torch.bfloat16)
    rows = []
    for name in BENCHMARKS:
        if any(Path(options.data, task).is_dir() for task in members_of(stock_tasks(), name).tasks):
            texts, items = real_requests(name, options.data)
            requests, source = tokenise(reader, texts), "measured"
        else:
            requests, items, source = shaped_requests(SHAPES[name]), SHAPES[name].items, "estimated"
        rows.append((name, items, len(requests), *counts(requests, model), source))
        print(line(*rows[-1]), flush=True)
    total = [sum(row[column] for row in rows) for column in range(1, 6)]
    print(line("all", *total, f"{total[2] / total[4]:.1f}x and {total[3] / total[4]:.1f}x fewer"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
    write_atomically(options.out, text.getvalue())


QWEN3_8B = Qwen3Config(
    vocab_size=151936,
    hidden_size=4096,
    intermediate_size=12288,
    num_hidden_layers=36,
    num_attention_heads=32,
    num_key_value_heads=8,
    head_dim=128,
    max_position_embeddings=CONTEXT,
    tie_word_embeddings=False,
)


def real_requests(name: str, data: str) -> tuple[list[tuple[str, str]], int]:
    """Return the texts that lm-eval asks for a task or group, and its number of items."""
    texts: list[tuple[str, str]] = []
    items = 0
    loaded = Loader([name], task_data=data).load(Benchmark(task=name))
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(SEEDS["fewshot"])
        with redirect_stderr(io.StringIO()):
            task.build_all_requests()
        texts += [instance.args for instance in task.instances]
        items += len(task.eval_docs)
    return texts, items


def shaped_requests(shape: Shape) -> TokenRequests:
    """Return requests of a shape; items share nothing but what chance makes them share."""
    random = np.random.default_rng(0)

    def tokens(count: int) -> np.ndarray:
        return random.integers(0, QWEN3_8B.vocab_size, count, np.int32)

    questions = (tokens(shape.question) for _ in range(shape.items))
    return TokenRequests.from_pairs(
        (question, tokens(shape.choice)) for question in questions for _ in range(shape.choices)
    )


def counts(requests: TokenRequests, model: Any) -> tuple[int, int, int]:
    """Return the tokens that lm-eval `vllm`, lm-eval `hf` and our passes run."""
    costs = pass_costs(model, min(requests.longest() - 1, CONTEXT), BUDGET)
    plan = plan_passes(requests, CONTEXT, costs)
    naive, grouped, _ = plan.counts.tolist()
    return naive + len(requests), grouped, len(plan.tokens)  # vllm runs the last token, too


def line(task: str, items: int, requests: int, *rest: Any) -> str:
    """Return one line of the printed table."""
    naive, hf, prefix, source = rest
    return f"{task:22} {items:7,} {requests:9,} {naive:12,} {hf:12,} {prefix:12,}  {source}"


if __name__ == "__main__":
    main()
