"""Peak memory of the prefix backend on long requests, beside the budget it was given.

    python benchmarks/scoring_memory.py --model DIR [--length 2048] [--budgets 64 256 1024]

Each budget is measured in a process of its own, once the model is loaded and has run: on a CPU
the growth of resident memory (Linux), on a GPU that of the memory torch has allocated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

MIB = 2**20


def main() -> None:
    """Measure every budget and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--length", type=int, default=2048, help="tokens of the longest requests")
    parser.add_argument("--budgets", type=int, nargs="+", default=[256, 512, 1024], help="MiB")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # MiB, in a process of its own
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options)))
        return
    print("budget MiB   peak MiB   largest pass, tokens   passes")
    for budget in options.budgets:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", str(budget)]
        output = subprocess.run(command, capture_output=True, text=True, check=False)
        if output.returncode:
            print(f"{budget:10}   {output.stderr.splitlines()[-1]}")
            continue
        peak, largest, passes = json.loads(output.stdout.splitlines()[-1])
        print(f"{budget:10} {peak / MIB:10.0f} {largest:22} {passes:8}")


def measure(options: argparse.Namespace) -> tuple[int, int, int]:
    """Return the peak in bytes, the largest pass and the number of passes under one budget."""
    import torch

    from wildmerge.scoring.prefix.backend import PrefixLM
    from wildmerge.scoring.prefix.requests import TokenRequests

    torch.set_num_threads(1)
    lm = PrefixLM(
        options.model,
        dtype=options.dtype,
        device=options.device,
        memory_budget=options.one * MIB,
        on_scored=lambda count: None,
    )
    random = np.random.default_rng(0)
    length = min(options.length, lm.max_length)
    passage = random.integers(0, 1000, length // 2)
    pairs = [(passage, random.integers(0, 1000, length - length // 2)) for _ in range(2)]
    pairs += [(passage, random.integers(0, 1000, 40)) for _ in range(20)]
    requests = TokenRequests.from_pairs(pairs)
    lm._score(TokenRequests.from_pairs([(passage[:8], passage[8:16])]), None, True)
    plan = lm._plan(requests, None)
    before = reset(lm.device)
    lm._score(requests, None, True)
    sizes = np.diff(plan.node_bounds)
    return peak(lm.device) - before, int(sizes.max()), len(sizes)


def reset(device) -> int:  # noqa: ANN001 - torch is imported late
    """Forget the peak so far and return the memory in use."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak(device) -> int:  # noqa: ANN001
    """Return the peak since `reset`."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    return status("VmHWM")


def status(key: str) -> int:
    """Return a number of bytes that the kernel knows about this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


if __name__ == "__main__":
    main()
