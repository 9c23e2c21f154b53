"""How much memory a process may still take on this machine, within its control group if it has one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

# limit, usage and what of the usage is file cache that the kernel gives back: version 2, version 1
FILES = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that new allocations may take without swapping.

    Containers and SLURM jobs have control groups whose limits the machine's own numbers do not show.

    Args:
        root: where /proc and /sys stand.
    """
    available: int = psutil.virtual_memory().available
    return min([available, *(left for _, left in _limits(root))])


def total_bytes(root: Path = Path("/")) -> int:
    """Return the bytes that all processes of this machine or control group share."""
    total: int = psutil.virtual_memory().total
    return min([total, *(limit for limit, _ in _limits(root))])


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and what is left of it, of this process's control groups and those above."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        for name, *files in FILES:
            if name in controllers.split(","):
                for path in (PurePosixPath(group), *PurePosixPath(group).parents):
                    yield from _limit(root / "sys/fs/cgroup" / name / str(path).strip("/"), *files)


def _limit(folder: Path, limit: str, usage: str, cache: str) -> Iterator[tuple[int, int]]:
    """Yield one control group's limit and what is left; nothing where it has none."""
    try:
        most = int((folder / limit).read_text())  # "max" is no number
        used = int((folder / usage).read_text())
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):
        return
    yield most, most - used + int(statistics.get(cache, 0))
