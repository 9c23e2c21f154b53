"""What a job asks of a machine, and what this machine has."""

from __future__ import annotations

from wildmerge.jobs.devices import visible
from wildmerge.planning.lock import Lock
from wildmerge.scoring.memory import total_bytes

PROGRAM_MB = 2_500
"""What a job holds without a model: Python, torch, lm-eval and a benchmark's items."""


def checkpoint_bytes(lock: Lock, name: str) -> int:
    """Return the size of a locked checkpoint's files."""
    return sum(file["size"] for file in lock.checkpoints[name]["files"].values())


def memory_mb(model_bytes: int, attempt: int = 1) -> int:
    """Return the memory of a job that merges and scores models of this size.

    A merge holds a few tensors; scoring on a CPU holds the model, twice its size in float32.
    """
    return attempt * (PROGRAM_MB + round(2.5 * model_bytes / 1e6))


def minutes(model_bytes: int, attempt: int = 1, *, models: int = 1) -> int:
    """Return a time limit, generous for 16 benchmarks on a GPU of the last years; more each attempt.

    For an 8B model in bfloat16, 16 GB, a little over an hour a model.
    """
    return attempt * round(20 + models * (10 + 4 * model_bytes / 1e9))


def machine() -> dict[str, int]:
    """Return what jobs on this machine share: memory in MB and GPUs."""
    return {"mem_mb": total_bytes() // 1_000_000, "gpu": len(visible())}
