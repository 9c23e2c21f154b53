"""Score models on benchmarks and write one result file each, as soon as it is known.

A `Session` keeps what several models share: the index of tasks and, per benchmark, its settings. Results
that exist are never computed again.
"""

from __future__ import annotations

import io
import logging
import os
import random
import tempfile
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.files import write_json
from wildmerge.scoring.task_sources import include_paths
from wildmerge.study import Benchmark, Evaluation
from wildmerge.words import unknown

Result = dict[str, Any]

SEED, FEWSHOT_SEED = 0, 1234
"""lm-eval's own default seeds: of task preparation, and of drawing few-shot examples."""


@dataclass(frozen=True)
class Item:
    """One benchmark to run: its settings, the id of its result, and the file to write."""

    benchmark: Benchmark
    evaluation_id: str
    path: Path


class Session:
    """Scores models in one process, so that imports and the index of tasks are paid once.

    Args:
        tasks: names of all tasks that will be asked for.
        evaluation: backend, dtype and chat template.
        tasks_dir: folder of own task YAMLs.
        task_data: folder <task>/<split>.jsonl that replaces stock tasks' data.
        device: "cpu", "cuda" or "cuda:i".
        store: folder for tokenised requests, which all models of a base share; None keeps none.
        batch_size: of the `hf` backend.
    """

    def __init__(
        self,
        tasks: list[str],
        evaluation: Evaluation,
        *,
        tasks_dir: str | None = None,
        task_data: str | None = None,
        store: Path | None = None,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._scratch = tempfile.TemporaryDirectory(prefix="wildmerge-tasks-")
        folders = include_paths(tasks, tasks_dir, task_data, Path(self._scratch.name))
        from lm_eval.tasks import TaskManager

        _quiet()
        self._manager = TaskManager(include_path=folders, include_defaults=False)
        self._loaded: dict[str, Any] = {}
        self.evaluation = evaluation
        self.store = store
        self.device = device
        self.batch_size = batch_size

    def score(
        self, model: Path, items: list[Item], on_done: Callable[[Item], None] | None = None
    ) -> None:
        """Score one model folder on every item whose result file does not exist yet."""
        missing = [item for item in items if not item.path.exists()]
        if not missing:
            return
        lm = self._load(model)
        for item in missing:
            write_json(item.path, self._run(lm, item))
            if on_done:
                on_done(item)

    def _load(self, model: Path) -> Any:
        if not any(model.glob("tokenizer*")):
            raise Refusal(f"{model}: no tokenizer files; copy those of the base into it")
        options = {
            "dtype": self.evaluation.dtype,
            "device": self.device,
            "batch_size": self.batch_size,
            "trust_remote_code": False,
        }
        if self.evaluation.backend == "hf":
            from lm_eval.models.huggingface import HFLM

            return HFLM(str(model), **options)
        from wildmerge.scoring.prefix import PrefixLM

        return PrefixLM(str(model), store=self.store, **options)

    def _run(self, lm: Any, item: Item) -> Result:
        # evaluate(), not simple_evaluate(): the latter runs `pip list` for every result
        from lm_eval.evaluator import evaluate

        before = _tokens(lm)
        with redirect_stderr(io.StringIO()):  # its progress bars; ours counts benchmarks
            raw = evaluate(
                lm=lm,
                task_dict=self._tasks(item.benchmark),
                limit=item.benchmark.limit,
                apply_chat_template=self.evaluation.chat_template,
                fewshot_as_multiturn=self.evaluation.chat_template,
                log_samples=True,
                bootstrap_iters=0,
            )
        spent = {key: value - before[key] for key, value in _tokens(lm).items()}
        return _result(raw, item, self.evaluation) | ({"tokens": spent} if spent else {})

    def _tasks(self, benchmark: Benchmark) -> Any:
        """Return a task or group, loaded once and seeded anew, so that every model sees the same."""
        key = benchmark.label or benchmark.task
        if key not in self._loaded:
            random.seed(SEED)
            self._loaded[key] = self._manager.load([benchmark.task])
            for name, task in self._loaded[key]["tasks"].items():
                _set_fewshot(name, task, benchmark.num_fewshot)
        for task in self._loaded[key]["tasks"].values():
            task.set_fewshot_seed(seed=FEWSHOT_SEED)
        return self._loaded[key]


def _set_fewshot(name: str, task: Any, wanted: int | None) -> None:
    """Set a task's number of examples by lm-eval's rule: asked for, else its own, else none."""
    fixed = task.get_config("num_fewshot")
    if wanted is None:
        task.set_config(key="num_fewshot", value=fixed or 0)
    elif fixed == 0 != wanted:
        raise Refusal(f"benchmark {name}: its definition fixes num_fewshot at 0; leave it out")
    else:
        task.set_config(key="num_fewshot", value=wanted)


def _tokens(lm: Any) -> dict[str, int]:
    """Return what the `prefix` backend has counted so far: tokens, requests, truncated requests."""
    return asdict(lm.counts) if hasattr(lm, "counts") else {}


def _result(raw: Any, item: Item, evaluation: Evaluation) -> Result:
    """Reduce lm-eval's output to what a result file holds."""
    benchmark = item.benchmark
    scores = {**raw["results"], **raw.get("groups", {})}[benchmark.task]
    key = f"{benchmark.metric},none"
    if key not in scores:
        known = sorted({k.partition(",")[0] for k in scores if k.endswith(",none")} - {"alias"})
        known = [k for k in known if not k.endswith("_stderr")]
        raise Refusal(f"benchmark {benchmark.task}: {unknown('metric', benchmark.metric, known)}")
    samples = [s for task in sorted(raw["samples"]) for s in raw["samples"][task]]
    correct = [float(sample[benchmark.metric]) for sample in samples]
    count = len(correct)
    share = sum(correct) / count
    return {
        "schema": 1,
        "task": benchmark.task,
        "evaluation_id": item.evaluation_id,
        "metric": benchmark.metric,
        "score": float(scores[key]),
        "stderr": (share * (1 - share) / max(count - 1, 1)) ** 0.5,
        "n": count,
        "chance": sum(1 / len(sample["filtered_resps"]) for sample in samples) / count,
        "settings": {
            "num_fewshot": raw["n-shot"].get(benchmark.task),
            "limit": benchmark.limit,
            **evaluation.model_dump(),
        },
        "versions": {
            "lm_eval": metadata.version("lm_eval"),
            "task": raw["versions"].get(benchmark.task),
            "transformers": metadata.version("transformers"),
            "torch": metadata.version("torch"),
        },
        "items": {
            "doc_hash": [sample["doc_hash"] for sample in samples],
            "correct": [int(value) for value in correct],
        },
    }


def _quiet() -> None:
    """Leave lm-eval, datasets and transformers their warnings and take their chatter."""
    import datasets
    import transformers

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
