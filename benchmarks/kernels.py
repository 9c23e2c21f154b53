"""Time the kernels of the matrix methods on a GPU against `torch.linalg.svd`.

    python benchmarks/kernels.py

Prints seconds and the relative error against a float64 SVD for the shapes of an 8B model.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from wildmerge.vectors import linalg


def main() -> None:
    """Time the kernels of the matrix methods against `torch.linalg.svd` on a GPU."""
    if not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here")

    def timed(function: Any, matrix: Any) -> float:
        function(matrix)
        torch.cuda.synchronize()
        started = time.monotonic()
        function(matrix)
        torch.cuda.synchronize()
        return time.monotonic() - started

    print(f"{torch.cuda.get_device_name()}: seconds, and relative error against a float64 SVD")
    print(f"{'shape':<14}{'svd f32':>10}{'svd f64':>10}{'ours':>10}{'error':>10}")
    for shape in ((4096, 4096), (4096, 14336), (14336, 4096)):
        matrix = 1e-3 * torch.randn(shape, device="cuda")
        plain = [timed(polar_by_svd, m) for m in (matrix, matrix.double())]
        ours = timed(linalg.polar, matrix)
        exact = polar_by_svd(matrix.double())
        error = float((linalg.polar(matrix) - exact).norm() / exact.norm())
        name = f"{shape[0]}x{shape[1]}"
        print(f"{name:<14}{plain[0]:>10.3f}{plain[1]:>10.3f}{ours:>10.3f}{error:>10.1e}")


def polar_by_svd(matrix: Any) -> Any:
    """Return the polar factor by a full SVD."""
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    return u @ vh


if __name__ == "__main__":
    main()
