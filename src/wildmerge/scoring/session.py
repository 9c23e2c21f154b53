"""Score models on benchmarks and write one result file each, as soon as it is known.

A `Session` keeps what several models share: the index of tasks and, per benchmark, its settings, data,
and requests. Results that exist are never computed again.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.errors import Refusal
from wildmerge.scoring.result import Result, result_of, tokens_of
from wildmerge.storage.files import write_json
from wildmerge.storage.folders import Scratch
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark, EvaluationSettings
from wildmerge.tasks.checks import check_benchmark
from wildmerge.tasks.digests import LockedTask
from wildmerge.tasks.loading import SEEDS, Loader

if TYPE_CHECKING:
    from wildmerge.scoring.vllm.engine import Engine

logger = logging.getLogger(__name__)


class Session:
    """Scores models in one process, so that imports, tasks and requests are paid once.

    Args:
        tasks: names of all tasks that will be asked for.
        settings: backend, dtype and chat template.
        tasks_dir: folder of own task YAMLs.
        task_data: folder <task>/<split>.jsonl that replaces stock tasks' data.
        locked: what the study's lock says of its benchmarks; what differs from it is refused.
        device: "cpu", "cuda" or "cuda:i".
        store: folder for tokens and passes, which all models of a base share; None keeps none.
        batch_size: of the `hf` backend.

    Attributes:
        requests: number of requests of each benchmark that was built so far, by its name.
        documents: digest of all that each checked benchmark asks.
    """

    def __init__(
        self,
        tasks: list[str],
        settings: EvaluationSettings,
        *,
        tasks_dir: str | None = None,
        task_data: str | None = None,
        locked: Mapping[str, LockedTask] | None = None,
        store: Path | None = None,
        device: str = "cpu",
        batch_size: int = 16,
    ) -> None:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        self._scratch = Scratch("wildmerge-engine-")
        self._loader = Loader(tasks, tasks_dir, task_data, locked)
        _quiet()
        self._built: set[tuple[str, str | None]] = set()
        self.requests: dict[str, int] = {}
        self.documents: dict[Benchmark, str] = {}
        self.settings = settings
        self.store = store
        self.device = device
        self.batch_size = batch_size

    def check(self, benchmarks: Iterable[Benchmark]) -> None:
        """Load tasks and their data, before any model; raises Refusal where one cannot be scored."""
        for benchmark in benchmarks:
            if benchmark not in self.documents:
                loaded = self._loader.load(benchmark)
                self.documents[benchmark] = check_benchmark(benchmark, loaded)

    def score(
        self,
        model: Path,
        files: Mapping[Path, Evaluation],
        *,
        on_built: Callable[[dict[str, int]], None] | None = None,
        on_scored: Callable[[int], None] | None = None,
    ) -> None:
        """Score one model folder on every benchmark whose result file does not exist yet.

        Args:
            model: the folder.
            files: the result file to write of each evaluation.
            on_built: called with `requests` before the first of them is scored.
            on_scored: called with the number of requests scored since the last call.
        """
        missing = {path: each for path, each in files.items() if not path.exists()}
        if not missing:
            return
        self.check([each.benchmark for each in missing.values()])
        lm = self._load(model)
        for evaluation in missing.values():
            self._build(lm, evaluation)
        if on_built:
            on_built(self.requests)
        for path, evaluation in missing.items():
            write_json(path, self._run(lm, evaluation, on_scored or (lambda count: None)))

    def _load(self, model: Path) -> Any:
        if not any(model.glob("tokenizer*")):
            raise Refusal(f"{model}: no tokenizer files; copy those of the base into it")
        options: dict[str, Any] = {
            "dtype": self.settings.dtype,
            "device": self.device,
            "batch_size": self.batch_size,
            "trust_remote_code": False,
        }
        if self.settings.backend == "vllm":
            return self._engine.load(model)
        if self.settings.backend == "hf":
            from lm_eval.models.huggingface import HFLM

            return HFLM(str(model), **options)
        from wildmerge.scoring.prefix.backend import PrefixLM

        return PrefixLM(str(model), store=self.store, **options)

    @cached_property
    def _engine(self) -> Engine:
        from wildmerge.scoring.vllm.engine import Engine

        return Engine(self.settings.dtype, self.device, self._scratch.path)

    def _build(self, lm: Any, evaluation: Evaluation) -> None:
        """Build a benchmark's requests, once for all models that share a chat template."""
        from wildmerge.scoring.instances import prepare

        name, template = evaluation.benchmark.name, self._chat_template(lm)
        if (name, template) in self._built:
            return
        chat = {"apply_chat_template": False, "fewshot_as_multiturn": False}
        if template is not None:
            chat = dict.fromkeys(chat, True) | {"chat_template": lm.apply_chat_template}
        self.requests[name] = 0
        for task in self._loader.load(evaluation.benchmark)["tasks"].values():
            task.set_fewshot_seed(seed=SEEDS["fewshot"])
            with redirect_stderr(io.StringIO()):
                self.requests[name] += prepare(task, evaluation.benchmark.limit, chat)
        self._built = {(other, t) for other, t in self._built if other != name} | {(name, template)}

    def _chat_template(self, lm: Any) -> str | None:
        """Return the template that requests are built with; None when they are plain text."""
        return str(lm.tokenizer.chat_template) if self.settings.chat_template else None

    def _run(self, lm: Any, evaluation: Evaluation, on_scored: Callable[[int], None]) -> Result:
        # evaluate(), not simple_evaluate(): the latter runs `pip list` for every result
        from lm_eval.evaluator import evaluate

        from wildmerge.scoring.instances import forget_answers

        tasks = self._loader.load(evaluation.benchmark)
        for task in tasks["tasks"].values():
            forget_answers(task)
        before = tokens_of(lm)
        if counts_itself := hasattr(lm, "on_scored"):
            lm.on_scored = on_scored
        with redirect_stderr(io.StringIO()):  # its progress bars; ours counts all benchmarks
            raw = evaluate(
                lm=lm,
                task_dict=tasks,
                limit=evaluation.benchmark.limit,
                apply_chat_template=self.settings.chat_template,
                fewshot_as_multiturn=self.settings.chat_template,
                log_samples=True,
                bootstrap_iters=0,
            )
        if not counts_itself:
            on_scored(self.requests[evaluation.benchmark.name])
        spent = {key: value - before[key] for key, value in tokens_of(lm).items()}
        if spent.get("truncated"):
            logger.warning(
                "%s: %d of %d requests are longer than the model's context; as in lm-eval, their "
                "beginning is cut off",
                evaluation.benchmark.name,
                spent["truncated"],
                spent["requests"],
            )
        return result_of(raw, evaluation, self.settings) | ({"tokens": spent} if spent else {})


def _quiet() -> None:
    """Leave datasets and transformers their warnings and take their chatter."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
