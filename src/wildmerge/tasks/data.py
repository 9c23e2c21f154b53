"""Benchmark data of the hub, downloaded into the cache of datasets where there is network.

Every task is loaded once as for scoring, so that what it will ask for on a compute node without network
is exactly what is there.
"""

from __future__ import annotations

import logging
import time

from tqdm import tqdm

from wildmerge.errors import Refusal
from wildmerge.hub.retries import PAUSES
from wildmerge.study.file import Benchmark, Study
from wildmerge.tasks.loading import Loader
from wildmerge.tasks.sources import hub_tasks, source_of


def fetch_data(study: Study) -> tuple[list[str], list[str]]:
    """Fetch the data of all of a study's benchmarks that come from the hub.

    Returns:
        The benchmarks whose data are there now, and a line on each whose data could not be fetched.
    """
    tasks = hub_tasks(study)
    if not tasks:
        return [], []
    import datasets

    loader = Loader(tasks, study.tasks_dir, study.task_data)
    datasets.disable_progress_bars()
    for library in ("lm_eval", "datasets", "huggingface_hub"):  # they quote addresses and headers
        logging.getLogger(library).setLevel(logging.CRITICAL)
    benchmarks = {b.task: b for b in study.benchmarks}
    problems = {}
    for task in tqdm(tasks, desc="fetching data", unit="benchmark", disable=None):
        try:
            _load(loader, benchmarks[task])
        except Refusal as refusal:
            error = refusal.__cause__
            problems[task] = _in_one_line(study, task, error) if error else str(refusal)
    return [task for task in tasks if task not in problems], [*problems.values()]


def _load(loader: Loader, benchmark: Benchmark) -> None:
    """Load a benchmark; twice more after a failure that may pass."""
    for pause in (*PAUSES[:2], None):
        try:
            loader.load(benchmark)
            return
        except Refusal as refusal:
            if pause is None or not isinstance(refusal.__cause__, OSError | RuntimeError):
                raise
            time.sleep(pause)


def _in_one_line(study: Study, task: str, error: BaseException) -> str:
    """Say which data are missing and how to provide them; an error's own text quotes requests."""
    where = source_of(study, task) or "its source"
    return (
        f"benchmark {task}: its data ({where}) cannot be loaded ({type(error).__name__}); try again, "
        f"put them into the folder that `task_data` names as {task}/<split>.jsonl, or copy HF_HOME "
        "from a machine that has them"
    )
