"""Which GPU a process works on: one that no other process of wildmerge on this machine works on.

A process takes a GPU by locking a file named after it; the kernel frees the lock when the process ends,
however it ends. CUDA_VISIBLE_DEVICES then names that GPU alone, so that every library agrees.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from wildmerge.errors import Refusal

_leases: list[IO[str]] = []  # open, and so locked, until the process ends


def choose(name: str) -> str:
    """Turn "auto" into a device of this process's own and refuse one that is not there.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:i"; only "auto" takes a GPU for this process alone, and
            waits for one where all are taken.

    Raises:
        Refusal: no such name; a GPU is asked for and torch does not see it.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise Refusal(f"--device {name}: no such device; give cpu, cuda, cuda:0, ... or auto")
    if name == "auto":
        shared = visible()
        if shared:  # also in a SLURM job, in which two studies may run
            os.environ.setdefault(
                "CUDA_DEVICE_ORDER", "PCI_BUS_ID"
            )  # nvidia-smi's, as in visible()
            os.environ["CUDA_VISIBLE_DEVICES"] = lease(shared)
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu" and not torch.cuda.is_available():
        raise Refusal(f"--device {name}: torch sees no GPU here; choose cpu")
    if int(name.partition(":")[2] or 0) >= max(1, torch.cuda.device_count()):
        raise Refusal(
            f"--device {name}: torch sees {torch.cuda.device_count()} GPUs, from cuda:0 on"
        )
    return name


def visible() -> dict[str, str]:
    """Return the GPUs that this process may use: their names for CUDA, and what identifies each."""
    uuids = _uuids()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None or not uuids:
        return uuids
    named = [gpu.strip() for gpu in chosen.split(",")]
    return {gpu: _identity(gpu, uuids) for gpu in named if gpu not in ("", "-1")}


def lease(gpus: Mapping[str, str], folder: Path | None = None) -> str:
    """Take one of some GPUs until this process ends and return its name; waits for a free one.

    Args:
        gpus: names -> what identifies each on this machine.
        folder: of the lock files; default one of this user's in the machine's temporary folder.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"wildmerge-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    said = False
    while True:
        for name, identity in gpus.items():
            file = open(folder / identity, "w")  # noqa: SIM115 - stays open
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                continue
            _leases.append(file)
            return name
        if not said:
            print(f"all of {len(gpus)} GPUs are taken; waiting", file=sys.stderr, flush=True)
        said = True
        time.sleep(1)


def _identity(gpu: str, uuids: Mapping[str, str]) -> str:
    """Return the UUID of a GPU that CUDA_VISIBLE_DEVICES names by index, UUID or a UUID's beginning."""
    if gpu in uuids:
        return uuids[gpu]
    return next((uuid for uuid in uuids.values() if uuid.startswith(gpu)), gpu)


def _uuids() -> dict[str, str]:
    """Return index -> UUID of this machine's GPUs as the driver lists them; none without a driver."""
    if not shutil.which("nvidia-smi"):
        return {}
    listed = subprocess.run(
        ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False
    ).stdout
    return dict(re.findall(r"^GPU (\d+): .*\(UUID: (\S+)\)$", listed, re.MULTILINE))
