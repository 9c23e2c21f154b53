"""Benchmark data of the hub, downloaded into the cache of datasets where there is network.

Every task is loaded once as for scoring, so that what it will ask for on a compute node without network
is exactly what is there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from tqdm import tqdm

from wildmerge.errors import Refusal
from wildmerge.hub.retries import PAUSES
from wildmerge.study.file import Benchmark, Study
from wildmerge.tasks.digests import LockedTask, data_sets
from wildmerge.tasks.loading import Loader


def fetch_data(study: Study, locked: Mapping[str, LockedTask]) -> tuple[list[str], list[str]]:
    """Fetch the data of all of a study's benchmarks that come from the hub, at the locked commits.

    Returns:
        The benchmarks whose data are there now, and a line on each whose data could not be fetched.

    Raises:
        Refusal: a benchmark is not as it was locked.
    """
    loader = Loader((b.task for b in study.benchmarks), study.tasks_dir, study.task_data, locked)
    for benchmark in study.benchmarks:
        loader.require_unchanged(benchmark.task)
    benchmarks = {b.task: b for b in study.benchmarks if data_sets(locked[b.task])}
    if not benchmarks:
        return [], []
    import datasets

    from wildmerge.tasks import manager  # noqa: F401 - first, since it sets a level of its own

    datasets.disable_progress_bars()
    for library in ("lm_eval", "datasets", "huggingface_hub"):  # they quote addresses and headers
        logging.getLogger(library).setLevel(logging.CRITICAL)
    problems = {}
    for task in tqdm(benchmarks, desc="fetching data", unit="benchmark", disable=None):
        try:
            _load(loader, benchmarks[task])
        except Refusal as refusal:
            error = refusal.__cause__
            problems[task] = _in_one_line(task, locked[task], error) if error else str(refusal)
    return [task for task in benchmarks if task not in problems], [*problems.values()]


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


def _in_one_line(task: str, locked: LockedTask, error: BaseException) -> str:
    """Say which data are missing and how to provide them; an error's own text quotes requests."""
    where = ", ".join(name.removeprefix("hub ") for name in data_sets(locked))
    return (
        f"benchmark {task}: its data ({where}) cannot be loaded ({type(error).__name__}); try again, "
        f"put them into the folder that `task_data` names as {task}/<split>.jsonl, or copy HF_HOME "
        "from a machine that has them"
    )
