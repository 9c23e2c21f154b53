"""Benchmarks loaded by lm-eval: the one way in, for fetching their data and for scoring.

A few tasks shuffle choices with the global `random` while they load, so it is seeded before each.
"""

from __future__ import annotations

import io
import logging
import random
import re
from collections.abc import Iterable
from contextlib import redirect_stderr
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.storage.folders import Scratch
from wildmerge.study.file import Benchmark
from wildmerge.tasks.sources import include_paths

SEED = 0
"""lm-eval's own default seed of task preparation."""


class Loader:
    """Loads benchmarks and their data, each once.

    Args:
        tasks: names of all tasks that will be asked for.
        tasks_dir: folder of own task YAMLs.
        task_data: folder <task>/<split>.jsonl that replaces stock tasks' data.

    Raises:
        Refusal: a task is known nowhere.
    """

    def __init__(
        self, tasks: Iterable[str], tasks_dir: str | None = None, task_data: str | None = None
    ) -> None:
        self._scratch = Scratch("wildmerge-tasks-")
        folders = include_paths(list(tasks), tasks_dir, task_data, self._scratch.path)
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)  # takes its chatter
        self._manager = TaskManager(include_path=list(folders), include_defaults=False)
        self._loaded: dict[str, Any] = {}

    def load(self, benchmark: Benchmark) -> dict[str, Any]:
        """Return lm-eval's tasks, groups and their members, with data and number of examples.

        Raises:
            Refusal: the data cannot be read, or the task's definition fixes another number of examples.
        """
        name = benchmark.name
        if name not in self._loaded:
            random.seed(SEED)
            try:
                with redirect_stderr(io.StringIO()):  # progress bars of reading the data
                    loaded = self._manager.load([benchmark.task])
            except Exception as error:  # of any library that reads data
                raise Refusal(_unreadable(benchmark.task, error)) from error
            for member, task in loaded["tasks"].items():
                _set_fewshot(member, task, benchmark.num_fewshot)
            self._loaded[name] = loaded
        return self._loaded[name]  # type: ignore[no-any-return]


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
