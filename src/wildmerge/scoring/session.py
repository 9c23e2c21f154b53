"""Score models on benchmarks and write each result, as soon as it is known.

A `Session` keeps what several models share: the index of tasks and, per benchmark, its settings, data,
and requests. Results that exist are never computed again.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wildmerge.scoring.answers import Answers, read_answers
from wildmerge.scoring.backends import Backend
from wildmerge.scoring.items import share_items, write_answers
from wildmerge.scoring.result import Result, result_of
from wildmerge.storage.files import write_json
from wildmerge.study.evaluation import Evaluation
from wildmerge.study.file import Benchmark, EvaluationSettings
from wildmerge.tasks.checks import check_benchmark
from wildmerge.tasks.digests import LockedTask
from wildmerge.tasks.loading import SEEDS, Loader
from wildmerge.tasks.questions import Asked

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
        requests: number of requests of each benchmark that was built so far, by evaluation id.
        asked: all that each checked benchmark asks.
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
        self._loader = Loader(tasks, tasks_dir, task_data, locked)
        _quiet()
        self._backend = Backend(settings, device, store, batch_size)
        self._built: dict[str, str | None] = {}
        self.requests: dict[str, int] = {}
        self.asked: dict[Benchmark, Asked] = {}
        self.settings = settings

    def check(self, benchmarks: Iterable[Benchmark]) -> None:
        """Load tasks and their data, before any model; raises Refusal where one cannot be scored."""
        for benchmark in benchmarks:
            if benchmark not in self.asked:
                loaded = self._loader.load(benchmark)
                self.asked[benchmark] = check_benchmark(benchmark, loaded)

    def share(self, evaluations: Iterable[Evaluation], results: Path) -> None:
        """Write the items of checked benchmarks once, for all models.

        Raises:
            Refusal: earlier models were asked other items.
        """
        for evaluation in evaluations:
            share_items(evaluation.items(results), self.asked[evaluation.benchmark])

    def definition(self, benchmark: Benchmark) -> LockedTask:
        """Return what decides the questions of a benchmark, as a lock has it."""
        return self._loader.definition(benchmark.task)

    def score(
        self,
        folder: Path,
        name: str,
        evaluations: Iterable[Evaluation],
        results: Path,
        *,
        on_built: Callable[[dict[str, int]], None] | None = None,
        on_scored: Callable[[int], None] | None = None,
    ) -> None:
        """Score one model folder on every benchmark that has no result yet.

        Args:
            folder: the model.
            name: what its results are stored under: its recipe id, or the identity of its folder.
            evaluations: what to score it on; several metrics of one task are one evaluation.
            results: root of all results.
            on_built: called with `requests` before the first of them is scored.
            on_scored: called with the number of requests scored since the last call.
        """
        known = {each.id: each for each in evaluations}.values()
        missing = [each for each in known if not each.is_finished(results, name)]
        if not missing:
            return
        self.check([each.benchmark for each in missing])
        lm = self._backend.load(folder)
        self.share(missing, results)
        for evaluation in missing:
            self._build(lm, evaluation)
        if on_built:
            on_built(self.requests)
        for evaluation in missing:
            answers, result = self._run(lm, name, evaluation, on_scored or (lambda count: None))
            # the result comes last: it says that all of it is there
            file = evaluation.answers(results, name)
            write_answers(file, answers.values, answers.gold, answers.other)
            write_json(evaluation.path(results, name), result)

    def _build(self, lm: Any, evaluation: Evaluation) -> None:
        """Build a benchmark's requests, once for all models that share a chat template."""
        from wildmerge.scoring.instances import prepare

        template = str(lm.tokenizer.chat_template) if self.settings.chat_template else None
        if self._built.get(evaluation.id, "") == template:
            return
        chat = {"apply_chat_template": False, "fewshot_as_multiturn": False}
        if template is not None:
            chat = dict.fromkeys(chat, True) | {"chat_template": lm.apply_chat_template}
        self.requests[evaluation.id] = 0
        for task in self._loader.load(evaluation.benchmark)["tasks"].values():
            task.set_fewshot_seed(seed=SEEDS["fewshot"])
            with redirect_stderr(io.StringIO()):
                count = prepare(task, evaluation.benchmark.limit, chat)
            self.requests[evaluation.id] += count
        self._built[evaluation.id] = template

    def _run(
        self, lm: Any, name: str, evaluation: Evaluation, on_scored: Callable[[int], None]
    ) -> tuple[Answers, Result]:
        """Score one benchmark; return the answers and what its result file holds."""
        before = _tokens(lm)
        raw = self._evaluate(lm, evaluation, on_scored)
        benchmark, tasks = evaluation.benchmark, self._loader.load(evaluation.benchmark)["tasks"]
        asked = self.asked[benchmark]
        answers = read_answers(raw, benchmark, tasks, asked.items)
        result = result_of(
            answers,
            evaluation,
            model=name,
            settings=self.settings,
            documents=asked.documents,
            raw=raw,
        )
        fallback = getattr(lm, "fallback_reason", None)
        result["scored_by"] = {"backend": self.settings.backend, "fallback": fallback}
        result["tokens"] = {key: value - before[key] for key, value in _tokens(lm).items()}
        _warn(benchmark, result)
        return answers, result

    def _evaluate(
        self, lm: Any, evaluation: Evaluation, on_scored: Callable[[int], None]
    ) -> dict[str, Any]:
        """Return lm-eval's output for one benchmark."""
        # evaluate(), not simple_evaluate(): the latter runs `pip list` for every result
        from lm_eval.evaluator import evaluate

        from wildmerge.scoring.instances import forget_answers

        loaded = self._loader.load(evaluation.benchmark)
        for task in loaded["tasks"].values():
            forget_answers(task)
        if counts_itself := hasattr(lm, "on_scored"):
            lm.on_scored = on_scored
        with redirect_stderr(io.StringIO()):  # its progress bars; ours counts all benchmarks
            raw: dict[str, Any] = evaluate(
                lm=lm,
                task_dict=loaded,
                limit=evaluation.benchmark.limit,
                apply_chat_template=self.settings.chat_template,
                fewshot_as_multiturn=self.settings.chat_template,
                log_samples=True,
                bootstrap_iters=0,
            )
        if not counts_itself:
            on_scored(self.requests[evaluation.id])
        return raw


def _tokens(lm: Any) -> dict[str, int]:
    """Return what the `prefix` backend has counted so far: tokens, requests, truncated requests."""
    return asdict(lm.counts) if hasattr(lm, "counts") else {}


def _warn(benchmark: Benchmark, result: Result) -> None:
    """Say what a reader of the score should know."""
    tokens = result["tokens"]
    if tokens.get("truncated"):
        logger.warning(
            "%s: %d of %d requests are longer than the model's context; as in lm-eval, their "
            "beginning is cut off",
            benchmark.name,
            tokens["truncated"],
            tokens["requests"],
        )
    for remark in result["remarks"]:
        logger.warning("%s: %s; is the model whole?", benchmark.name, remark)


def _quiet() -> None:
    """Leave datasets and transformers their warnings and take their chatter."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
