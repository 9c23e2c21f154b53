"""A benchmark's requests as lm-eval builds them: once for all models of a process.

Building renders templates for every document: for a full HellaSwag as long as a fast GPU takes to score
it. Few-shot draws are seeded, so all models are asked the same, and what was built once is handed to
lm-eval again.
"""

from __future__ import annotations

from typing import Any


def prepare(task: Any, limit: int | None, chat: dict[str, Any]) -> int:
    """Give a task its requests and keep lm-eval from building them again.

    Args:
        task: lm-eval's task, seeded.
        limit: first documents only.
        chat: lm-eval's arguments about chat templates.

    Returns:
        The number of requests.
    """
    vars(task).pop("build_all_requests", None)  # an earlier call's, see below
    task.build_all_requests(limit=limit, **chat)
    task.build_all_requests = lambda **_: None  # evaluate() would build them anew for every model
    return len(task.instances)


def forget_answers(task: Any) -> None:
    """Make a task's requests ready for the next model."""
    for instance in task.instances:
        instance.resps, instance.filtered_resps = [], {}
