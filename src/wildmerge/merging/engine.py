"""The engine: stream a base and its experts through a method into a complete model folder.

Every tensor is read lazily, merged in float32, rounded once to the output dtype and written in place.
Tensors are spread over worker threads, and each is worked on by one thread alone, so that the bytes
written do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wildmerge.checkpoints.dtypes import name_of
from wildmerge.checkpoints.roles import merged_tensors, roles_of
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.checkpoints.writer import Writer
from wildmerge.merging import checks
from wildmerge.merging.spectra import Spectra
from wildmerge.methods.catalogue import Method
from wildmerge.study.recipe import Recipe
from wildmerge.vectors.task_vectors import Facts, TaskVectors


def function_of(recipe: Recipe, method: Method) -> Callable[[TaskVectors], Any]:
    """Return the recipe's method with its hyperparameters filled in."""
    if len(recipe.experts) == 1:  # every method returns a single expert as it is
        return lambda vectors: lambda deltas, at: deltas[0]
    function = method.load()
    call = {f"{k}_" if k == "lambda" else k: value for k, value in recipe.parameters.items()}
    if method.takes_null_space:
        call["null_space"] = recipe.null_space
    return lambda vectors: function(vectors, **call)


class Engine:
    """One merge: its inputs, its method, its output."""

    def __init__(
        self,
        base: Checkpoint,
        experts: list[Checkpoint],
        function: Callable[[TaskVectors], Any],
        *,
        method: str,
        identities: Sequence[str],
        spectra: Spectra,
        dtype: torch.dtype,
        device: str,
        chunk: int | None,
    ) -> None:
        self.base = base
        self.roles = roles_of(base)
        self.experts = experts
        self.function = function
        self.method = method
        self.identities = identities
        self.spectra = spectra
        self.dtype = dtype
        self.device = device
        self.chunk = chunk

    def run(self, folder: Path, threads: int, progress: bool) -> dict[str, Facts]:
        """Merge every tensor into shards in `folder`; return the facts of each."""
        floats = merged_tensors(self.base)
        stored = {n: i.dtype for n, i in self.base.tensors.items()}
        stored |= {n: name_of(self._dtype_of(n)) for n in floats}
        writer = Writer(folder, {n: (stored[n], i.shape) for n, i in self.base.tensors.items()})
        for name in self.base.tensors.keys() - floats.keys():  # integers and buffers
            writer.write(name, 0, self.base[name].reshape(-1))
        total = sum(math.prod(info.shape) for info in floats.values())
        facts: dict[str, Facts] = {}
        with (
            ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool,
            tqdm(
                total=total,
                unit="weights",
                unit_scale=True,
                desc="merging",
                disable=None if progress else True,
            ) as bar,
        ):
            # the largest first: no worker is left with a long job when the others are done
            order = sorted(floats, key=lambda name: -math.prod(floats[name].shape))
            jobs = {pool.submit(self._tensor, name, writer): name for name in order}
            try:
                for job in as_completed(jobs):
                    facts[jobs[job]] = job.result()
                    bar.update(math.prod(floats[jobs[job]].shape))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                writer.close(keep=False)
                raise
            finally:
                writer.close()
        return {name: facts[name] for name in floats}

    def _dtype_of(self, name: str) -> torch.dtype:
        """Return the output's dtype of a tensor: float32 where a 16-bit base and all experts keep it.

        A router's bias, say, whose differences 16 bits cannot hold. A base of float32 is rounded whole.
        """
        kept = all(c.tensors[name].dtype == "F32" for c in (self.base, *self.experts))
        return torch.float32 if kept and self.base.dtype != "float32" else self.dtype

    def _tensor(self, name: str, writer: Writer) -> Facts:
        """Merge one tensor, write it, and return its facts."""
        vectors = TaskVectors(
            self.base.stored(name),
            [expert.stored(name) for expert in self.experts],
            name=name,
            role=self.roles[name],
            sources=[str(c.folder) for c in (self.base, *self.experts)],
            identities=self.identities,
            factors=self.spectra.of(name),
            device=self.device,
            chunk=self.chunk,
        )
        update, facts = checks.split(self.function(vectors), vectors, self.method)
        squares = lost = 0.0
        for at, part in checks.chunks(update, vectors, self.method):
            squares += _square(part)
            base = vectors.base_chunk(at)
            merged = base.add(part)
            written = checks.rounded(merged, self._dtype_of(name), name)
            writer.write(name, at.start, written)
            # nearly equal numbers differ exactly: both differences are of float32's own
            lost += _square(merged.copy_(written).sub_(base).sub_(part))
        writer.finish(name)
        return {"norm": math.sqrt(squares), "lost": math.sqrt(lost), **facts}


def _square(part: torch.Tensor) -> float:
    """Return the sum of squares of a chunk; in float64 where float32 has no such number."""
    found = float(part.dot(part))
    return found if math.isfinite(found) else float(part.double().square().sum())
