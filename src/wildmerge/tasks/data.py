"""Benchmark data of the hub, brought into the cache of datasets where there is network.

lm-eval itself loads every task once, so that what it will ask for on a compute node without network is
exactly what is there.
"""

from __future__ import annotations

import logging
import tempfile
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wildmerge.hub.transfer import PAUSES
from wildmerge.study.file import Study
from wildmerge.tasks.sources import hub_tasks, include_paths, source_of


def fetch_data(study: Study) -> tuple[list[str], list[str]]:
    """Fetch the data of all of a study's benchmarks that come from the hub.

    Returns:
        The benchmarks whose data are there now, and a line on each whose data could not be fetched.
    """
    tasks = hub_tasks(study)
    if not tasks:
        return [], []
    import datasets
    from lm_eval.tasks import TaskManager

    datasets.disable_progress_bars()
    for library in ("lm_eval", "datasets", "huggingface_hub"):  # they quote addresses and headers
        logging.getLogger(library).setLevel(logging.CRITICAL)
    fetched, problems = [], []
    with tempfile.TemporaryDirectory(prefix="wildmerge-tasks-") as scratch:
        folders = include_paths(tasks, study.tasks_dir, study.task_data, Path(scratch))
        manager = TaskManager(include_path=folders, include_defaults=False)
        for task in tqdm(tasks, desc="fetching data", unit="benchmark", disable=None):
            try:
                _load(manager, task)
                fetched.append(task)
            except Exception as error:  # datasets knows a hundred ways to fail
                problems.append(_in_one_line(study, task, error))
    return fetched, problems


def _load(manager: Any, task: str) -> None:
    """Load a task; twice more after a failure that may pass."""
    for pause in (*PAUSES[:2], None):
        try:
            manager.load([task])
            return
        except (OSError, RuntimeError):
            if pause is None:
                raise
            time.sleep(pause)


def _in_one_line(study: Study, task: str, error: Exception) -> str:
    """Say which data are missing and how to provide them; an error's own text quotes requests."""
    where = source_of(study, task) or "its source"
    return (
        f"benchmark {task}: its data ({where}) cannot be loaded ({type(error).__name__}); try again, "
        f"put them into the folder that `task_data` names as {task}/<split>.jsonl, or copy HF_HOME "
        "from a machine that has them"
    )
