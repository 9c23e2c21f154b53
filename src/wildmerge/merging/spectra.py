"""Stored singular triplets of an expert's task vectors: computed once, read by every TSV-M merge of it.

A file holds, for every matrix, the leading half of the triplets in float32, which is all that a merge of
two experts or more can use: `<tensor>.u` (half, rows), `<tensor>.sigma` (half,) and `<tensor>.v`
(half, columns). A merge that reads them writes the same bytes as one that computes them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from wildmerge.errors import Refusal
from wildmerge.storage.files import require_replaceable
from wildmerge.storage.folders import private_folder
from wildmerge.study.recipe import NUMERICS, short_hash

Triplets = tuple[Any, Any, Any]
"""U^T, sigma and V^T of one task vector, as tensors."""


def file_name(base: str, expert: str) -> str:
    """Return the name of the file of an expert's spectra, from the content identities of both."""
    return f"{short_hash({'numerics': NUMERICS, 'base': base, 'expert': expert})}.safetensors"


def compute(
    base: str | Path, expert: str | Path, out: Path, *, device: str = "cpu", threads: int = 1
) -> Path:
    """Write the spectra of one expert to `out`, which appears when it is complete.

    Args:
        base: folder of the base.
        expert: folder of the expert.
        out: the file; its folder is made.
        device: "cpu", "cuda" or "cuda:i".
        threads: matrices decomposed at once on a CPU.

    Raises:
        Refusal: checkpoints that do not fit together, NaN.
    """
    import torch

    from wildmerge.checkpoints.compatibility import require_compatible
    from wildmerge.checkpoints.opening import open_checkpoint
    from wildmerge.checkpoints.roles import merged_tensors, roles_of
    from wildmerge.checkpoints.writer import Writer
    from wildmerge.vectors import linalg
    from wildmerge.vectors.task_vectors import TaskVectors

    require_replaceable(out)
    start = open_checkpoint(base)
    moved = open_checkpoint(expert, start)  # its matrices need no alignment
    require_compatible(start, {str(expert): moved})
    roles = roles_of(start)
    matrices = {name: i for name, i in merged_tensors(start).items() if roles[name] == "matrix"}
    shapes = {name: info.shape for name, info in matrices.items()}

    def decompose(name: str, writer: Writer) -> None:
        vectors = TaskVectors(
            start.stored(name),
            [moved.stored(name)],
            name=name,
            sources=[str(start.folder), str(moved.folder)],
            device=device,
        )
        for part, values in zip("u sigma v".split(), linalg.leading(vectors, 0), strict=True):
            writer.write(f"{name}.{part}", 0, values.reshape(-1))

    with private_folder(out.parent, f".{out.name}.partial-") as folder, linalg.one_thread():
        writer = Writer(folder, _layout(shapes), shard_bytes=1 << 62)
        workers = threads if device == "cpu" else 1
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for job in [pool.submit(decompose, name, writer) for name in shapes]:
                job.result()
        writer.close()
        os.replace(folder / "model.safetensors", out)
    return out


def _layout(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[str, tuple[int, ...]]]:
    layout: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (rows, columns) in shapes.items():
        half = min(rows, columns) // 2
        layout[f"{name}.u"] = ("F32", (half, rows))
        layout[f"{name}.sigma"] = ("F32", (half,))
        layout[f"{name}.v"] = ("F32", (half, columns))
    return layout


class Spectra:
    """The spectra files of some experts, in their order; a tensor's bytes are read when asked for."""

    def __init__(self, files: Sequence[Path]) -> None:
        from safetensors import SafetensorError, safe_open

        self._open: list[Any] = []
        for file in files:
            try:
                self._open.append(safe_open(file, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise Refusal(
                    f"{file}: no readable spectra ({error}); compute them again"
                ) from None
        self._names = [set(handle.keys()) for handle in self._open]

    def of(self, name: str) -> list[Triplets]:
        """Return the triplets of one tensor for every expert; none where it is no matrix."""
        if not self._open or any(f"{name}.sigma" not in names for names in self._names):
            return []
        return [
            (
                handle.get_tensor(f"{name}.u"),
                handle.get_tensor(f"{name}.sigma"),
                handle.get_tensor(f"{name}.v"),
            )
            for handle in self._open
        ]
