"""The geometry of a base's experts: how far they went, where to, and how much they have in common.

Norms, cosines and signs are of all weights, read once, tensor by tensor. Ranks and subspaces need a
decomposition of every matrix of every expert, which takes hours for large models; of those, as many
layers are measured, evenly spaced, as `WORK` allows. Each row says what it was measured on.

Every tensor is worked on by one thread alone and sums are added up in the order of the tensors, so that
the numbers do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wildmerge.checkpoints.alignment import align
from wildmerge.checkpoints.compatibility import require_base, require_compatible
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.checkpoints.roles import Role, kind_of, layer_of, merged_tensors, roles_of
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.vectors import linalg, subspaces
from wildmerge.vectors.comparing import Sums, compare
from wildmerge.vectors.subspaces import Subspaces
from wildmerge.vectors.task_vectors import TaskVectors

Row = dict[str, Any]
_Found = tuple[Sums, Subspaces | None]
COLUMNS = ("measure", "expert", "other", "part", "number", "measured_on")

WORK = 2e14
"""Operations that decompositions may take, for all experts of a base: two hours of a CPU core. All
layers of six experts of 0.1 billion weights take 4e12, each layer of twelve of 8 billion 6e13."""


@dataclass
class _Part:
    """What was found of some tensors."""

    sums: Sums
    spectra: list[Subspaces]
    matrices: int = 0


def geometry(
    base: str | Path,
    experts: Mapping[str, str | Path],
    *,
    untie: bool = False,
    threads: int = 1,
) -> list[Row]:
    """Measure the experts of a base.

    Args:
        base: folder of the base.
        experts: folder of each expert by its name.
        untie: as in a recipe.
        threads: tensors worked on at once.

    Returns:
        Rows of `COLUMNS`: a measure of the base, an expert or two of them in a part of the model ("all",
        "layer 3", "kind attention"). A number that is unknown (the cosine of a zero vector) is NaN.

    Raises:
        Refusal: checkpoints that do not fit together, NaN.
    """
    foundation = open_checkpoint(base)
    require_base(foundation)
    opened = {name: open_checkpoint(folder, foundation) for name, folder in experts.items()}
    require_compatible(foundation, opened)
    start, aligned, _ = align(foundation, opened, untie=untie)
    with linalg.one_thread():
        parts = _measure(start, list(aligned.values()), threads)
    for checkpoint in (start, *aligned.values()):
        checkpoint.require_unchanged()
    return [
        dict(zip(COLUMNS, (measure, expert, other, name, number, measured_on), strict=True))
        for name, part in parts.items()
        for measure, expert, other, number, measured_on in _rows(part, list(experts))
    ]


def _measure(base: Checkpoint, experts: Sequence[Checkpoint], threads: int) -> dict[str, _Part]:
    """Measure every tensor, the largest first, and add up in their order."""
    roles = roles_of(base)
    shapes = {name: info.shape for name, info in merged_tensors(base).items()}
    matrices = {name: shape for name, shape in shapes.items() if roles[name] == "matrix"}
    decomposed = chosen(matrices, len(experts))

    def measure(name: str) -> _Found:
        vectors = TaskVectors(
            base.stored(name),
            [expert.stored(name) for expert in experts],
            name=name,
            role=roles[name],
            sources=[str(c.folder) for c in (base, *experts)],
        )
        sums = compare(vectors)
        return sums, subspaces.decompose(vectors) if name in decomposed else None

    found = _in_threads(measure, sorted(shapes, key=lambda n: -math.prod(shapes[n])), threads)
    parts: dict[str, _Part] = {}
    for name in shapes:
        for part in _parts_of(name, roles[name]):
            into = parts.setdefault(part, _Part(Sums.nothing(len(experts)), []))
            _add(into, *found[name], name in matrices)
    return parts


def _in_threads(
    measure: Callable[[str], _Found], names: Sequence[str], threads: int
) -> dict[str, _Found]:
    """Measure tensors, several at once."""
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = {name: pool.submit(measure, name) for name in names}
        try:
            bar = tqdm(jobs.items(), desc="measuring", unit="tensor", disable=None)
            return {name: job.result() for name, job in bar}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _add(part: _Part, sums: Sums, spectra: Subspaces | None, is_matrix: bool) -> None:
    part.sums.add(sums)
    part.matrices += is_matrix
    if spectra:
        part.spectra.append(spectra)


def _parts_of(name: str, role: Role) -> list[str]:
    layer = layer_of(name)
    of_layer = [] if layer is None else [f"layer {layer}"]
    return ["all", *of_layer, f"kind {kind_of(name, role)}"]


def chosen(matrices: Mapping[str, tuple[int, ...]], experts: int) -> set[str]:
    """Return the matrices that are decomposed: of all layers, or of some that are evenly spaced.

    Args:
        matrices: shape of each by name.
        experts: how many there are.
    """
    layers = sorted({layer for name in matrices if (layer := layer_of(name)) is not None})
    total = experts * sum(map(subspaces.work, matrices.values()))
    count = len(layers) if total <= WORK else max(1, int(len(layers) * WORK / total))
    places = np.linspace(0, len(layers) - 1, count).round().astype(int)
    kept = {None, *(layers[place] for place in places if layers)}
    return {name for name in matrices if layer_of(name) in kept}


def _rows(part: _Part, names: list[str]) -> Iterator[tuple[str, str, str, float, str]]:
    """Yield (measure, expert, other, number, measured on) of a part."""
    sums, on = part.sums, f"all {part.sums.weights:,} weights"
    yield "base_norm", "", "", sums.base_norm, on
    for name, norm in zip(names, sums.norms, strict=True):
        yield "norm", name, "", float(norm), on
        yield "relative_norm", name, "", _ratio(float(norm), sums.base_norm), on
    if len(names) > 1:
        yield "sign_conflict", "", "", sums.sign_conflict_of_all, on
        yield "sign_conflict_by_size", "", "", sums.sign_conflict_of_all_by_size, on
    yield from _pairs("cosine", sums.cosines, names, on)
    yield from _pairs("sign_conflict", sums.sign_conflicts, names, on)
    yield from _pairs("sign_conflict_by_size", sums.sign_conflicts_by_size, names, on)
    if part.spectra:
        yield from _spectral_rows(part, names)


def _spectral_rows(part: _Part, names: list[str]) -> Iterator[tuple[str, str, str, float, str]]:
    """Yield the means over the matrices that were decomposed."""
    found, on = part.spectra, f"{len(part.spectra):,} of {part.matrices:,} matrices"
    yield "full_rank", "", "", float(np.mean([min(s.shape) for s in found])), on
    effective = np.mean([s.effective_ranks for s in found], axis=0)
    numerical = np.mean([s.numerical_ranks for s in found], axis=0)
    for i, name in enumerate(names):
        yield "effective_rank", name, "", float(effective[i]), on
        yield "numerical_rank", name, "", float(numerical[i]), on
    if len(names) > 1:
        left, right = np.mean([s.chance for s in found], axis=0)
        yield "left_overlap_by_chance", "", "", float(left), on
        yield "right_overlap_by_chance", "", "", float(right), on
    yield from _pairs("left_overlap", _mean([s.left for s in found]), names, on)
    yield from _pairs("right_overlap", _mean([s.right for s in found]), names, on)


def _pairs(
    measure: str, values: Any, names: list[str], on: str
) -> Iterator[tuple[str, str, str, float, str]]:
    for i, name in enumerate(names):
        for k, other in enumerate(names[:i]):
            yield measure, name, other, float(values[i, k]), on


def _mean(matrices: list[Any]) -> Any:
    """Return the mean over matrices in which both experts moved something."""
    stacked = np.stack(matrices)
    known = ~np.isnan(stacked)
    total, count = np.where(known, stacked, 0).sum(0), known.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
