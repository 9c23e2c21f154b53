"""Benchmarks loaded by lm-eval: the one way in, for fetching their data and for scoring.

What is loaded follows from definition, data and seeds alone: random number generators are seeded as
lm-eval seeds them, and nothing that an earlier process made of the documents is taken from a cache.
"""

from __future__ import annotations

import io
import random
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.study.file import Benchmark
from wildmerge.tasks.data import at_commits, hub_key, on_local_data
from wildmerge.tasks.definitions import Config
from wildmerge.tasks.digests import LockedTask, data_sets, lock_task
from wildmerge.tasks.index import tasks_index, unknown_task

SEEDS = {"random": 0, "numpy": 1234, "torch": 1234, "fewshot": 1234}
"""lm-eval's own default seeds."""


class Loader:
    """Loads benchmarks and their data, each once.

    Args:
        tasks: names of all tasks that will be asked for.
        tasks_dir: folder of own task YAMLs.
        task_data: folder <task>/<split>.jsonl that replaces stock tasks' data.
        locked: what the study's lock says of its benchmarks; without it data of the hub are those of
            today, or those that the cache has.

    Raises:
        Refusal: a task is known nowhere.
    """

    def __init__(
        self,
        tasks: Iterable[str],
        tasks_dir: str | None = None,
        task_data: str | None = None,
        locked: Mapping[str, LockedTask] | None = None,
    ) -> None:
        self._index = tasks_index(tasks_dir)
        for task in tasks:
            if task not in self._index:
                raise Refusal(unknown_task(task, tasks_dir))
        self._task_data = task_data
        self._locked = locked
        self._loaded: dict[Benchmark, dict[str, Any]] = {}

    def load(self, benchmark: Benchmark) -> dict[str, Any]:
        """Return lm-eval's tasks, groups and their members, with data and number of examples.

        Raises:
            Refusal: the data cannot be read, definition or data are not the locked ones, or the
                definition fixes another number of examples.
        """
        if benchmark not in self._loaded:
            loaded = self._load(benchmark.task)
            for member, task in loaded["tasks"].items():
                _set_fewshot(member, task, benchmark.num_fewshot)
            self._loaded[benchmark] = loaded
        return self._loaded[benchmark]

    def definition(self, task: str) -> LockedTask:
        """Return a benchmark's definition and local data as a lock has them; no network is used."""
        return lock_task(self._index, task, self._task_data, lambda name, revision: "")

    def _load(self, task: str) -> dict[str, Any]:
        from wildmerge.tasks.manager import make_manager

        commits = self.require_unchanged(task)
        manager = make_manager(self._index, lambda config: self._prepare(config, commits))
        try:
            with redirect_stderr(io.StringIO()), _no_cache():  # progress bars of reading the data
                seed()
                return dict(manager.load([task]))
        except Refusal:
            raise
        except Exception as error:  # of any library that reads data
            raise Refusal(_unreadable(task, error)) from error

    def _prepare(self, config: Config, commits: Mapping[str, str]) -> Config:
        """Return a task's definition with its data replaced by local ones, or at the locked commits."""
        import datasets

        config = on_local_data(config, self._task_data)
        if not commits:
            return config
        return at_commits(config, commits, Path(datasets.config.HF_DATASETS_CACHE, "commits"))

    def require_unchanged(self, task: str) -> Mapping[str, str]:
        """Return the locked commits of a benchmark's data sets; none without a lock.

        Raises:
            Refusal: definition, code or local data of the benchmark are not the locked ones.
        """
        if self._locked is None:
            return {}
        locked = self._locked.get(task, {"definition": "", "data": {}})
        commits: dict[str, str] = locked["data"]

        def commit_of(name: str, revision: str) -> str:
            return commits.get(hub_key(name, revision), "")

        now = lock_task(self._index, task, self._task_data, commit_of)
        if now != locked:
            changed = [k for k, v in now["data"].items() if commits.get(k, v) != v]
            what = (
                f"its data {changed[0]}" if changed else "its definition or the code that it calls"
            )
            raise Refusal(
                f"benchmark {task}: {what} changed since it was locked; run `wildmerge lock` on the "
                "study again"
            )
        return data_sets(locked)


def seed() -> None:
    """Seed the generators that tasks may draw from, as lm-eval does before it loads any."""
    import numpy as np
    import torch

    random.seed(SEEDS["random"])
    np.random.seed(SEEDS["numpy"])  # noqa: NPY002 - what lm-eval seeds and tasks draw from
    torch.manual_seed(SEEDS["torch"])


@contextmanager
def _no_cache() -> Iterator[None]:
    """Keep `datasets` from taking, for what a function made of documents, an earlier run's outcome."""
    import datasets

    enabled = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        yield
    finally:
        if enabled:
            datasets.enable_caching()


def _unreadable(task: str, error: Exception) -> str:
    """Say in one line why a task's data cannot be read, and what to do."""
    reason = " ".join(str(error).split()) or type(error).__name__
    reason = re.sub(r"(?<=//)[^/@\s]+@|\?\S+", "", reason)  # addresses may carry passwords
    return (
        f"benchmark {task}: its data cannot be read ({reason}); fetch them where there is network "
        f"(`wildmerge fetch STUDY.yaml`), or put them into a folder as {task}/<split>.jsonl and name "
        "it as task_data in the study (--task-data)"
    )


def _set_fewshot(name: str, task: Any, wanted: int | None) -> None:
    """Set a task's number of examples by lm-eval's rule: asked for, else its own, else none."""
    fixed = task.get_config("num_fewshot")
    if wanted is None:
        task.set_config(key="num_fewshot", value=fixed or 0)
    elif fixed == 0 != wanted:
        raise Refusal(f"benchmark {name}: its definition fixes num_fewshot at 0; leave it out")
    else:
        task.set_config(key="num_fewshot", value=wanted)
