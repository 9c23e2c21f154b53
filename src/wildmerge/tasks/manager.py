"""lm-eval's own manager of tasks, on the index that is here already; importing this imports lm-eval."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._factory import TaskFactory
from lm_eval.tasks._index import Entry as LmEvalEntry
from lm_eval.tasks._index import Kind

from wildmerge.tasks.definitions import Config, Entry

_KINDS = {"task": Kind.TASK, "class": Kind.PY_TASK, "group": Kind.GROUP, "tag": Kind.TAG}

logging.getLogger("lm_eval").setLevel(logging.ERROR)  # takes its chatter


def make_manager(index: Mapping[str, Entry], prepare: Callable[[Config], Config]) -> TaskManager:
    """Return lm-eval's manager of the tasks of an index.

    Args:
        index: all names that are known.
        prepare: changes a task's definition before the task is made of it.
    """
    manager = TaskManager(include_defaults=False)
    manager.task_index.update(
        {
            name: LmEvalEntry(name, _KINDS[entry.kind], entry.path, tags=set(entry.members))
            for name, entry in index.items()
        }
    )
    manager._factory = _Factory(prepare)
    return manager


class _Factory(TaskFactory):  # type: ignore[misc]
    """Makes tasks of definitions that are prepared first, with the settings of the groups above."""

    def __init__(self, prepare: Callable[[Config], Config]) -> None:
        super().__init__()
        self._prepare = prepare

    def _load_full_config(self, entry: LmEvalEntry, overrides: Config | None = None) -> Config:
        config: Config = super()._load_full_config(entry, overrides)
        if entry.kind not in (Kind.TASK, Kind.PY_TASK):
            return config
        config = self._prepare(config)
        fewshot = config.get("fewshot_config")
        for part in (config, fewshot if isinstance(fewshot, dict) else {}):
            if callable(part.get("process_docs")):
                part["process_docs"] = _once(part["process_docs"])
        return config


def _once(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Keep what a function made of each split of a data set.

    lm-eval asks for a split's documents several times and relies on the cache of `datasets` for the same
    answer; without that cache a function that shuffles choices would shuffle them anew.
    """
    outcomes: list[tuple[Any, Any]] = []

    @wraps(process)
    def once(documents: Any) -> Any:
        for seen, outcome in outcomes:
            if seen is documents:
                return outcome
        outcomes.append((documents, process(documents)))
        return outcomes[-1][1]

    return once
