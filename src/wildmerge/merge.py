"""The engine: stream a base and its experts through a method into a complete model folder.

Every tensor is read lazily, merged in float32, rounded once to the output dtype and written in place.
Tensors are spread over worker threads, and each is worked on by one thread alone, so that the bytes
written do not depend on the number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from wildmerge import card, methods
from wildmerge.checkpoints.compatibility import require_compatible
from wildmerge.checkpoints.tensors import FLOATS, Checkpoint
from wildmerge.checkpoints.writer import NAMES, Writer, new_folder
from wildmerge.errors import Refusal
from wildmerge.recipe import Recipe
from wildmerge.spectra import Spectra
from wildmerge.task_vectors import TaskVectors, Update

Report = dict[str, Any]


def merge(
    recipe: Recipe,
    out: Path,
    *,
    folders: dict[str, Path] | None = None,
    spectra: Mapping[str, Path] | None = None,
    device: str = "cpu",
    threads: int = 1,
    overwrite: bool = False,
    progress: bool = True,
    chunk: int | None = None,
) -> Report:
    """Merge a recipe into the Hugging Face model folder `out` and return its merge report.

    Args:
        recipe: base, at least one expert, method and hyperparameters.
        out: appears when it is complete, never before.
        folders: where each checkpoint of the recipe lies; default its name is its folder.
        spectra: file of each expert's stored spectra (see `wildmerge.spectra`); used by a method that
            asks for them when all experts have one.
        device: "cpu", "cuda" or "cuda:i".
        threads: tensors merged at once on a CPU.
        overwrite: replace an existing `out`.
        progress: show a bar.
        chunk: elements worked on at once; a choice of speed, never of result.

    Raises:
        Refusal: checkpoints that do not fit together, NaN, an existing `out`, unknown methods.
    """
    started = time.monotonic()
    recipe, function = _prepare(recipe)
    places = folders or {}
    base = Checkpoint(places.get(recipe.base, recipe.base))
    experts = {e: Checkpoint(places.get(e, e)) for e in recipe.experts}
    warnings = require_compatible(base, experts)
    dtype = getattr(torch, recipe.dtype) if recipe.dtype else base.dtype
    torch.set_num_threads(1)  # parallel over tensors, see above
    with new_folder(out, overwrite=overwrite) as partial:
        engine = _Engine(
            base,
            list(experts.values()),
            function,
            spectra=_stored(recipe, spectra or {}),
            dtype=dtype,
            device=device,
            chunk=chunk,
        )
        tensors = engine.run(partial, threads if device == "cpu" else 1, progress)
        report = _report(recipe, tensors, warnings, time.monotonic() - started)
        card.write_files(partial, base, experts, recipe, report=report, dtype=dtype)
    return report


def _prepare(recipe: Recipe) -> tuple[Recipe, Callable[..., Any]]:
    """Complete the hyperparameters and load the method's function."""
    if recipe.method is None or not recipe.experts:
        raise Refusal("recipe: a merge needs a method and at least one expert")
    method = methods.get(recipe.method)
    parameters = method.complete(recipe.parameters)
    weights = parameters.get("weights")
    if weights and len(weights) != len(recipe.experts):
        raise Refusal(f"recipe: {len(weights)} weights for {len(recipe.experts)} experts")
    call = {f"{key}_" if key == "lambda" else key: value for key, value in parameters.items()}
    if method.takes_null_space:
        call["null_space"] = recipe.null_space
    function = method.load()
    if len(recipe.experts) == 1:  # every method returns a single expert as it is
        return recipe, lambda vectors: lambda deltas, at: deltas[0]
    complete = recipe.model_copy(update={"parameters": parameters})
    return complete, lambda vectors: function(vectors, **call)


def _stored(recipe: Recipe, files: Mapping[str, Path]) -> Spectra:
    """Open the experts' spectra when the method wants them and every expert has a file."""
    wanted = recipe.method == "tsv_m" and all(
        e in files and files[e].exists() for e in recipe.experts
    )
    return Spectra([files[expert] for expert in recipe.experts] if wanted else [])


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
        self.experts = experts
        self.function = function
        self.spectra = spectra
        self.dtype = dtype
        self.device = device
        self.chunk = chunk

    def run(self, folder: Path, threads: int, progress: bool) -> dict[str, Report]:
        """Merge every tensor into shards in `folder`; return what is to be told of each."""
        floats = {n: i for n, i in self.base.tensors.items() if i.dtype in FLOATS}
        stored = {
            n: NAMES[self.dtype] if n in floats else i.dtype for n, i in self.base.tensors.items()
        }
        writer = Writer(folder, {n: (stored[n], i.shape) for n, i in self.base.tensors.items()})
        for name in self.base.tensors.keys() - floats.keys():  # buffers that are no weights
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
                raise
            finally:
                writer.close()
        return {name: facts[name] for name in floats}

    def _tensor(self, name: str, writer: Writer) -> Report:
        """Merge one tensor, write it, and return its facts."""
        vectors = TaskVectors(
            self.base[name],
            [expert[name] for expert in self.experts],
            name=name,
            sources=[str(c.folder) for c in (self.base, *self.experts)],
            factors=self.spectra.of(name),
            device=self.device,
            chunk=self.chunk,
        )
        result = self.function(vectors)
        update, facts = result if isinstance(result, tuple) else (result, {})
        squares = 0.0
        for at, part in _parts(vectors, update):
            squares += float(part.dot(part))
            writer.write(name, at.start, vectors.base_chunk(at).add_(part).to(self.dtype))
        return {"norm": math.sqrt(squares), **facts}


def _parts(vectors: TaskVectors, update: Update) -> Any:
    """Yield (place, update chunk as float32) for either form of an update."""
    if isinstance(update, Tensor):
        flat = update.reshape(-1)
        yield from ((at, flat[at]) for at in vectors.places())
    else:
        yield from ((at, update(deltas, at)) for at, deltas in vectors.chunks())


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
        found.append(f"Model Stock's t is outside of [0, 1] in {len(unusual)} tensors: {unusual}")
    outside = {n: f["outside_share"] for n, f in tensors.items() if f.get("outside_share", 0) > 0}
    if outside:
        worst = max(outside, key=lambda name: outside[name])
        found.append(
            f"{len(outside)} matrices are rank deficient: the update puts energy outside of the span of "
            f"the experts (up to {outside[worst]:.1%} in {worst}); consider null_space: drop"
        )
    return found
