"""The engine: stream a base and its experts through a method into a complete model folder.

Every tensor is read lazily, merged in float32, rounded once to the output dtype and written in place.
Tensors are spread over worker threads, and each is worked on by one thread alone, so that the bytes
written do not depend on the number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wildmerge.checkpoints.alignment import align, warnings_of
from wildmerge.checkpoints.compatibility import Finding
from wildmerge.checkpoints.dtypes import name_of
from wildmerge.checkpoints.roles import merged_tensors, roles_of
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.checkpoints.writer import Writer
from wildmerge.merging import card
from wildmerge.merging.spectra import Spectra
from wildmerge.methods import catalogue as methods
from wildmerge.storage.folders import new_folder
from wildmerge.study.recipe import Recipe
from wildmerge.vectors import linalg
from wildmerge.vectors.task_vectors import TaskVectors

Report = dict[str, Any]
_NAMED = 3
"""How many tensors a remark names; the report has a line for each."""
_ROUNDING = 1e-6
"""A share of the energy of an update up to which there is none of it."""


def write_model(
    recipe: Recipe,
    base: Checkpoint,
    experts: Mapping[str, Checkpoint],
    out: Path,
    *,
    spectra: Sequence[Path],
    device: str,
    threads: int,
    overwrite: bool,
    progress: bool,
    chunk: int | None,
    findings: Sequence[Finding],
    started: float,
) -> Report:
    """Merge a checked recipe into the folder `out`; see `wildmerge.merging.merge.merge`.

    Args:
        recipe: with every hyperparameter written out.
        base: the recipe's base.
        experts: its experts by name, in order.
        out: appears when it is complete, never before.
        spectra: one file an expert, or none.
        device: "cpu", "cuda" or "cuda:i".
        threads: tensors merged at once on a CPU.
        overwrite: replace an existing `out`.
        progress: show a bar.
        chunk: elements worked on at once; a choice of speed, never of result.
        findings: what headers and configs showed of the experts.
        started: when the merge began, on the monotonic clock.

    Raises:
        Refusal: NaN or Inf, an existing `out`, spectra that cannot be read, experts that cannot be
            aligned with the base.
    """
    dtype: torch.dtype = getattr(torch, recipe.dtype or base.dtype)
    linalg.one_thread()  # parallel over tensors, see above
    base, experts, alignment = align(base, experts, untie=recipe.untie)
    with new_folder(out, overwrite=overwrite) as partial:
        engine = _Engine(
            base,
            list(experts.values()),
            _function(recipe),
            spectra=Spectra(spectra),
            dtype=dtype,
            device=device,
            chunk=chunk,
        )
        tensors = engine.run(partial, threads if device == "cpu" else 1, progress)
        for checkpoint in (base, *experts.values()):
            checkpoint.require_unchanged()
        warnings = [text for finding in findings for text in finding.warnings]
        warnings += warnings_of(alignment)
        report = _report(recipe, tensors, warnings, time.monotonic() - started)
        report["remarks"] = [text for finding in findings for text in finding.remarks]
        report["alignment"] = alignment
        card.write_files(partial, base, experts, recipe, report=report, dtype=dtype)
    return report


def _function(recipe: Recipe) -> Callable[[TaskVectors], Any]:
    """Return the recipe's method with its hyperparameters filled in."""
    assert recipe.method is not None
    if len(recipe.experts) == 1:  # every method returns a single expert as it is
        return lambda vectors: lambda deltas, at: deltas[0]
    method = methods.get(recipe.method)
    function = method.load()
    call = {f"{k}_" if k == "lambda" else k: value for k, value in recipe.parameters.items()}
    if method.takes_null_space:
        call["null_space"] = recipe.null_space
    return lambda vectors: function(vectors, **call)


class _Engine:
    """One merge: its inputs, its method, its output."""

    def __init__(
        self,
        base: Checkpoint,
        experts: list[Checkpoint],
        function: Callable[[TaskVectors], Any],
        *,
        spectra: Spectra,
        dtype: torch.dtype,
        device: str,
        chunk: int | None,
    ) -> None:
        self.base = base
        self.roles = roles_of(base)
        self.experts = experts
        self.function = function
        self.spectra = spectra
        self.dtype = dtype
        self.device = device
        self.chunk = chunk

    def run(self, folder: Path, threads: int, progress: bool) -> dict[str, Report]:
        """Merge every tensor into shards in `folder`; return what is to be told of each."""
        floats = merged_tensors(self.base)
        stored = {
            n: name_of(self.dtype) if n in floats else i.dtype for n, i in self.base.tensors.items()
        }
        writer = Writer(folder, {n: (stored[n], i.shape) for n, i in self.base.tensors.items()})
        for name in self.base.tensors.keys() - floats.keys():  # integers and buffers
            writer.write(name, 0, self.base[name].reshape(-1))
        total = sum(math.prod(info.shape) for info in floats.values())
        facts: dict[str, Report] = {}
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

    def _tensor(self, name: str, writer: Writer) -> Report:
        """Merge one tensor, write it, and return its facts."""
        vectors = TaskVectors(
            self.base.stored(name),
            [expert.stored(name) for expert in self.experts],
            name=name,
            role=self.roles[name],
            sources=[str(c.folder) for c in (self.base, *self.experts)],
            factors=self.spectra.of(name),
            device=self.device,
            chunk=self.chunk,
        )
        result = self.function(vectors)
        update, facts = result if isinstance(result, tuple) else (result, {})
        squares = 0.0
        for at, part in vectors.apply(update):
            squares += float(part.dot(part))
            writer.write(name, at.start, vectors.base_chunk(at).add(part).to(self.dtype))
        writer.finish(name)
        return {"norm": math.sqrt(squares), **facts}


def _report(
    recipe: Recipe, tensors: dict[str, Report], warnings: list[str], seconds: float
) -> Report:
    norm = math.sqrt(sum(facts["norm"] ** 2 for facts in tensors.values()))
    return {
        "schema": 1,
        "recipe": recipe.model_dump(mode="json"),
        "update_norm": norm,
        "tensors": tensors,
        "warnings": [*warnings, *_remarks(tensors)],
        "versions": card.versions(),
        "seconds": round(seconds, 3),
    }


def _remarks(tensors: dict[str, Report]) -> list[str]:
    """Return warnings that follow from the facts of the tensors."""
    found = []
    unusual = [name for name, facts in tensors.items() if facts.get("t_unusual")]
    if unusual:
        found.append(
            f"Model Stock's t is outside of [0, 1] in {len(unusual)} tensors: "
            f"{', '.join(unusual[:_NAMED])}{', ...' if len(unusual) > _NAMED else ''}"
        )
    shares = {name: facts.get("outside_share", 0) for name, facts in tensors.items()}
    outside = {name: share for name, share in shares.items() if share > _ROUNDING}
    if outside:
        worst = max(outside, key=lambda name: outside[name])
        found.append(
            f"{len(outside)} matrices are rank deficient: the update puts energy outside of the span of "
            f"the experts (up to {outside[worst]:.1%} in {worst}); consider null_space: drop"
        )
    return found
