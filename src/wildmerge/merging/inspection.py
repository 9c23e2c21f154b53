"""A look at a base and its experts before any merge: would they merge, and how far apart are they?

Every weight is read once, so that NaN is found here and not in the middle of a study. One row an expert:
whether it merges and why not, what of it would be left out, and its distance to the base (L2 over all
shared weights). The cosine between every two task vectors is estimated from the same random weights of
each: one in a few thousand, so that a sample of every expert fits into memory.
"""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tabulate import tabulate
from torch import Tensor
from tqdm import tqdm

from wildmerge.checkpoints.alignment import align, warnings_of
from wildmerge.checkpoints.compatibility import compare, require_base
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.checkpoints.roles import merged_tensors
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal, one_line
from wildmerge.vectors.task_vectors import TaskVectors

Row = dict[str, Any]

SAMPLED = 1 << 20
"""Weights of each expert that the cosines are estimated from: they are exact to about 0.001."""
_SAME_LENGTH, _SAME_DIRECTION = 1e-4, 1e-6
"""Task vectors whose lengths are equal and whose cosine is 1 to within these are the same expert's."""


@dataclass
class Inspection:
    """What was found: a row an expert, and the cosines of those that merge, (n, n), by name.

    `sampled` says which weights the cosines are of.
    """

    rows: list[Row]
    names: list[str] = field(default_factory=list)
    sampled: str = ""
    cosines: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    def pairs(self) -> list[Row]:
        """Return the cosines as rows of a table, one for each two experts."""
        return [
            {"expert": name, "other": other, "cosine": float(self.cosines[i, j])}
            for i, name in enumerate(self.names)
            for j, other in enumerate(self.names[:i])
        ]


def inspect(
    base: str | Path, experts: Mapping[str, str | Path], *, untie: bool = False
) -> Inspection:
    """Inspect experts beside their base.

    Args:
        base: folder of the base.
        experts: folder of each expert by its name.
        untie: as in a recipe.

    Raises:
        Refusal: the base cannot be merged with anything. What an expert is refused for stands in its
            row.
    """
    foundation = open_checkpoint(base)
    require_base(foundation)
    rows: list[Row] = []
    looks: dict[str, _Look] = {}
    for name, folder in tqdm(experts.items(), desc="inspecting", unit="expert", disable=None):
        try:
            look = _look(foundation, name, folder, untie)
        except Refusal as refusal:
            rows.append(unmeasured(name, "no", str(refusal)))
            continue
        duplicates = [other for other, seen in looks.items() if look.equals(seen)]
        looks[name] = look
        row = unmeasured(name, "yes", "")
        row |= {
            "distance": f"{look.distance:.6g}",
            "relative": f"{look.relative:.4g}",
            "remarks": "; ".join(
                [*look.remarks, *(f"the same weights as {t}" for t in duplicates)]
            ),
        }
        rows.append(row)
    samples = [look.sample for look in looks.values()]
    return Inspection(rows, list(looks), _sampled(foundation), _cosines(samples))


def unmeasured(expert: str, merges: str, refusal: str) -> Row:
    """Return the row of an expert whose weights were not read: whether it merges, and why not."""
    row = {"expert": expert, "merges": merges, "distance": "", "relative": "", "remarks": ""}
    return row | {"refusal": refusal}


def _sampled(base: Checkpoint) -> str:
    total = sum(_sizes(base).values())
    if total <= SAMPLED:
        return "over all weights"
    return f"from a sample of {SAMPLED:,} of {total:,} weights (exact to about 0.001)"


def _sizes(base: Checkpoint) -> dict[str, int]:
    """Return the number of weights of every tensor that holds some."""
    return {name: math.prod(info.shape) for name, info in merged_tensors(base).items()}


@dataclass
class _Look:
    """What one expert's weights show: distances, and a sample of its task vector, (SAMPLED,)."""

    distance: float
    relative: float
    sample: Tensor
    remarks: list[str]

    def equals(self, other: _Look) -> bool:
        """Return whether two experts are the same, as far as the distances and a sample show."""
        if not math.isclose(self.distance, other.distance, rel_tol=_SAME_LENGTH):
            return False
        cosine = _cosines([self.sample, other.sample])[0, 1]
        return self.distance == 0 or cosine > 1 - _SAME_DIRECTION


def _look(base: Checkpoint, name: str, folder: str | Path, untie: bool) -> _Look:
    opened = open_checkpoint(folder, base)
    finding = compare(base, {name: opened})[0]
    if finding.refusal:
        raise Refusal(finding.refusal)
    start, aligned, facts = align(base, {name: opened}, untie=untie)
    lines = (*finding.warnings, *finding.remarks, *warnings_of(facts))
    remarks = [line.partition(": ")[2] for line in lines]
    return _measure(start, aligned[name], remarks)


def _measure(base: Checkpoint, expert: Checkpoint, remarks: list[str]) -> _Look:
    floats = _sizes(base)
    rate = min(1.0, SAMPLED / sum(floats.values()))
    moved = size = 0.0
    samples = []
    for name, numel in floats.items():
        sources = [str(base.folder), str(expert.folder)]
        vectors = TaskVectors(base.stored(name), [expert.stored(name)], name=name, sources=sources)
        for at, deltas in vectors.chunks():
            moved += float(deltas.square().sum())
            size += float(vectors.base_chunk(at).square().sum())
        count = max(1, round(rate * numel))
        # each sampled weight stands for as many as its tensor has for one
        samples.append(vectors.sample(count)[0] * math.sqrt(numel / min(count, numel)))
    if moved == 0:
        remarks = [*remarks, "the same weights as the base"]
    distance = math.sqrt(moved)
    return _Look(distance, distance / math.sqrt(size) if size else 0.0, torch.cat(samples), remarks)


def _cosines(samples: list[Tensor]) -> NDArray[np.float64]:
    """Return the cosine of every two samples, (n, n); 0 where one is 0."""
    if not samples:
        return np.zeros((0, 0))
    wide = [sample.double().numpy() for sample in samples]
    # multiplied and summed in one order: BLAS rounds by where in memory the numbers happen to lie
    products = np.array([[float((a * b).sum()) for b in wide] for a in wide])
    norms = np.sqrt(products.diagonal())
    scale = np.outer(norms, norms)
    cosines: NDArray[np.float64] = np.zeros_like(products)
    np.divide(products, scale, out=cosines, where=scale > 0)
    return cosines.clip(-1, 1)


# --- as text --------------------------------------------------------------------------------------


def render(found: Inspection, width: int | None = None) -> str:
    """Return the table of experts and the matrix of cosines as text of at most `width` columns."""
    width = width or shutil.get_terminal_size((100, 24)).columns
    parts = ["\n".join(_table(found.rows, width))]
    if len(found.names) > 1:
        parts.append("\n".join(_matrix(found, width)))
    return "\n\n".join(parts)


def _table(rows: list[Row], width: int) -> Iterable[str]:
    """Yield an aligned line an expert, and below it, indented, what there is to say of it."""
    columns = ["expert", "merges", "distance", "relative"]
    cells = [[_tail(row["expert"], width // 2), *(row[c] for c in columns[1:])] for row in rows]
    align = ("left", "left", "right", "right")
    heading, *lines = tabulate(
        cells, columns, "plain", colalign=align, disable_numparse=True
    ).split("\n")
    yield heading
    for line, row in zip(lines, rows, strict=True):
        yield line.rstrip()
        text = row["refusal"] or row["remarks"]
        yield from textwrap.wrap(text, width, initial_indent="    ", subsequent_indent="    ")


def _matrix(found: Inspection, width: int) -> Iterable[str]:
    """Yield the lower triangle of the cosines, a column an expert, by number."""
    yield f"cosines between task vectors, {found.sampled}"
    count = len(found.names)
    names = [_tail(name, max(8, width - 8 - 7 * count)) for name in found.names]
    cells = [
        [index + 1, names[index], *(f"{round(cosine, 2) + 0:.2f}" for cosine in row[:index])]
        for index, row in enumerate(found.cosines)
    ]
    yield from tabulate(cells, ["", "", *range(1, count)], "plain", disable_numparse=True).split(
        "\n"
    )


def _tail(name: str, length: int) -> str:
    """Return the end of a name, which says more than its beginning, within some columns."""
    name = one_line(name)
    return name if len(name) <= length else "..." + name[3 - length :]
