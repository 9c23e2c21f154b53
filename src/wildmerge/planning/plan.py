"""What a study costs, before anything runs: models, jobs, tokens, bytes, memory, GPU-hours.

Counts follow from the study and its lock; what is assumed or estimated is said. Reads no network and no
weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from tabulate import tabulate

from wildmerge.errors import Refusal, unknown
from wildmerge.planning.admission import admit
from wildmerge.planning.costs import NUMBERS, Cost, Size, base_size, benchmark_cost
from wildmerge.planning.lock import Lock, checkpoints_of
from wildmerge.planning.models import Model, list_jobs, list_models
from wildmerge.study.file import Study
from wildmerge.tasks.digests import LockedTask

GPUS = {"A100": 312, "H100": 989, "H200": 989, "B200": 2250, "L40S": 362, "L4": 121}
"""Peak dense bfloat16 TFLOP/s by the makers' data sheets."""
READ_SPEED = 2e9  # bytes/s from the disk that holds the checkpoints
ITEM_BYTES = 7.1  # of a model's answers, one item: two log-likelihoods and what is right or wrong
RESULT_BYTES = 2_000  # of one result, whatever its items


def plan(
    study: Study,
    lock: Lock | None,
    results: Path,
    *,
    gpu: str = "H100",
    share: float = 0.4,
    slots: int = 1,
) -> str:
    """Return the plan of a study as text.

    Args:
        study: the study.
        lock: its lock, if there is one.
        results: root of all results, whose token counts are taken where they stand.
        gpu: a name of `GPUS`.
        share: of the GPU's peak that the forward passes reach, (0, 1].
        slots: jobs that run at the same time.

    Raises:
        Refusal: an unknown GPU, a share or a number of slots out of range.
    """
    if gpu not in GPUS:
        raise Refusal(f"--gpu: {unknown('GPU', gpu, GPUS)}")
    if not 0 < share <= 1 or slots < 1:
        raise Refusal("--share must be in (0, 1] and --slots at least 1")
    whole = placeholder(study, lock)
    study = admit(study, whole).study
    models = list_models(study, whole)
    costs = {b.label or b.task: benchmark_cost(study, b, lock, results) for b in study.benchmarks}
    sizes = {name: base_size(study, name, lock) for name in study.bases}
    speed = GPUS[gpu] * 1e12 * share
    paragraphs = [
        f"{study.name}: {len(models):,} models in {len(list_jobs(study, whole)):,} jobs, "
        f"{len(study.benchmarks)} benchmarks each",
        _bases(study, whole, sizes, costs, speed),
        _benchmarks(costs),
        _disk(study, models, sizes, costs, slots),
        _memory(sizes),
        _assumptions(study, lock, gpu=gpu, share=share),
    ]
    return "\n\n".join(paragraphs)


def placeholder(study: Study, lock: Lock | None = None) -> Lock:
    """Return the lock, with stand-ins for what it lacks: counts are right, ids of these are void."""
    entries = {name: {"identity": name} for name in checkpoints_of(study)}
    unknown_task: LockedTask = {"definition": "", "data": {}}
    tasks = {benchmark.task: unknown_task for benchmark in study.benchmarks}
    return Lock(entries | lock.checkpoints, tasks | lock.tasks) if lock else Lock(entries, tasks)


# --- the printed parts ----------------------------------------------------------------------------


def _bases(
    study: Study,
    lock: Lock,
    sizes: dict[str, Size | None],
    costs: dict[str, Cost | None],
    speed: float,
) -> str:
    headers = [
        "base",
        "models",
        "jobs",
        "weights",
        "download",
        "merge h",
        "evaluate h",
        "GPU-hours",
    ]
    rows = []
    hours: list[tuple[float | None, float | None]] = []
    for name in study.bases:
        part = study.model_copy(update={"bases": {name: study.bases[name]}})
        models, jobs = list_models(part, lock), list_jobs(part, lock)
        row = [name, f"{len(models):,}", f"{len(jobs):,}"]
        size = sizes[name]
        if size is None:
            rows.append([*row, *["?"] * 5])
            hours.append((None, None))
            continue
        # a merge reads its base and experts once; a token takes 2 operations a weight
        merge = (
            sum((m.n + 1) * size.merged for m in models if m.kind == "merge") / READ_SPEED / 3600
        )
        asked = [c.asked(study.evaluation.backend) if c else None for c in costs.values()]
        tokens = None if None in asked else sum(filter(None, asked))
        evaluate = (
            None if tokens is None else len(models) * tokens * 2 * size.weights / speed / 3600
        )
        hours.append((merge, evaluate))
        download = "?" if size.download is None else _bytes(size.download)
        rows.append([*row, f"{size.weights / 1e9:.2f} B", download, *_hours([hours[-1]])])
    rows.append(["all", *[""] * 4, *_hours(hours)])
    return _table(rows, "lrrrrrrr", headers)


def _hours(pairs: list[tuple[float | None, float | None]]) -> list[str]:
    """Return hours of merging and evaluating and their sum; ? where a part of one is not known."""
    merge, evaluate = zip(*pairs, strict=True)
    return [_total(values, ".1f") for values in (merge, evaluate, (*merge, *evaluate))]


def _total(values: Iterable[float | None], spec: str = "") -> str:
    """Return a sum, ? where one of its parts is not known."""
    known = list(values)
    return "?" if None in known else f"{sum(filter(None, known)):,{spec}}"


def _benchmarks(costs: dict[str, Cost | None]) -> str:
    headers = [
        *("benchmark", "items", "requests", "tokens", "distinct (hf)", "prefixes once", "source")
    ]
    rows = []
    for label, cost in costs.items():
        if cost is None:
            rows.append([label, *["?"] * 5, "unknown until a first model is scored"])
        else:
            counts = (getattr(cost, number) for number in NUMBERS)
            rows.append([label, *(f"{count:,}" for count in counts), cost.source])
    sums = (_total(getattr(c, n) if c else None for c in costs.values()) for n in NUMBERS)
    rows.append(["a model", *sums, ""])
    return _table(rows, "lrrrrrl", headers)


def _disk(
    study: Study,
    models: list[Model],
    sizes: dict[str, Size | None],
    costs: dict[str, Cost | None],
    slots: int,
) -> str:
    known = [size for size in sizes.values() if size]
    items = sum(cost.items for cost in costs.values() if cost)
    largest = max((size.merged for size in known), default=0.0)
    merged = {name: size.merged for name, size in sizes.items() if size}
    kept = sum(merged.get(m.base, 0) for m in models if m.kind == "merge")
    # the leading half of the triplets in float32: as much as half of a float32 expert, twice
    spectra = sum(4 * s.weights * len(study.bases[n].experts) for n, s in sizes.items() if s)
    downloads = sum(size.download or 0 for size in known)
    parts = {
        "checkpoints in the hub's cache": downloads,
        f"merged weights of {slots} jobs at a time": slots * largest,
        "stored spectra (store_spectra), at most": spectra if study.store_spectra else 0,
        "merged models kept (keep_weights)": kept if study.keep_weights else 0,
        "results": len(models) * (items * ITEM_BYTES + len(costs) * RESULT_BYTES),
    }
    lines = [[name, _bytes(value)] for name, value in parts.items() if value]
    return "peak disk\n" + _table([*lines, ["together", _bytes(sum(parts.values()))]], "lr")


def _memory(sizes: dict[str, Size | None]) -> str:
    lines = []
    for name, size in sizes.items():
        if size and size.largest:
            tensor, shape = size.largest
            one = 4 * math.prod(shape)
            text = f"{tensor} {'x'.join(map(str, shape))}: {_bytes(one)} in float32"
            lines.append([name, text, f"merge {_bytes(3 * one)}", f"weights {_bytes(size.merged)}"])
    if not lines:
        return "device memory: unknown until the study is locked"
    return (
        "device memory, assuming that a merge holds three of its largest tensor at most\n"
        + _table(lines, "llll")
    )


def _assumptions(study: Study, lock: Lock | None, *, gpu: str, share: float) -> str:
    lines = [
        f"{gpu}: {GPUS[gpu]} TFLOP/s dense bfloat16 at peak, of which forward passes reach {share:.0%}; "
        "2 operations a weight and token",
        f"merging waits for its inputs at {READ_SPEED / 1e9:g} GB/s; matrix decompositions not counted",
        f"scored by backend {study.evaluation.backend}; tokens as counted with one tokenizer, or "
        "estimated where it says so, until a base of the study is scored",
    ]
    if lock is None:
        lines.append(
            "no lock: sizes as in the bases' names, downloads unknown; `wildmerge lock` looks them up"
        )
    return "assumed\n" + "\n".join(f"  {line}" for line in lines)


def _table(rows: Iterable[Sequence[str]], align: str, headers: Sequence[str] = ()) -> str:
    """Return an indented table; `align` has an l or r for each column."""
    sides = ["left" if letter == "l" else "right" for letter in align]
    text = tabulate(
        rows, headers, tablefmt="plain", disable_numparse=True, colalign=sides, headersalign=sides
    )
    return "\n".join(f"  {line.rstrip()}" for line in text.splitlines())


def _bytes(count: float) -> str:
    """Return bytes as GB, or as MB below one."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
