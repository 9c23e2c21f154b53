"""A look at a base and its experts before any merge: would they merge, and how far apart are they?

Every weight is read once, so that NaN is found here and not in the middle of a study. One row an expert:
whether it merges and why not, what of it would be left out, and its distance to the base (L2 over all
shared weights). The experts are read side by side, so that the cosine between every two task vectors is
of all weights, too.
"""

from __future__ import annotations

import math
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate
from tqdm import tqdm

from wildmerge.checkpoints.alignment import align, warnings_of
from wildmerge.checkpoints.compatibility import compare, require_base
from wildmerge.checkpoints.opening import open_checkpoint
from wildmerge.checkpoints.roles import merged_tensors
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal, one_line
from wildmerge.vectors import comparing
from wildmerge.vectors.comparing import Sums
from wildmerge.vectors.task_vectors import TaskVectors

Row = dict[str, Any]

_SAME_LENGTH, _SAME_DIRECTION = 1e-4, 1e-6
"""Task vectors whose lengths are equal and whose cosine is 1 to within these are the same expert's."""


@dataclass
class Inspection:
    """What was found: a row an expert, and the cosines of those that merge, (n, n), by name.

    The cosine with a task vector that is zero is 0 here.
    """

    rows: list[Row]
    names: list[str] = field(default_factory=list)
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
    refusals: dict[str, str] = {}
    looks: dict[str, _Look] = {}
    for name, folder in experts.items():
        try:
            looks[name] = _look(foundation, name, folder, untie)
        except Refusal as refusal:
            refusals[name] = str(refusal)
    sums, broken = _measure(looks)
    refusals |= broken
    names = [name for name in looks if name not in broken]
    rows = [
        unmeasured(name, "no", refusals[name])
        if name in refusals
        else _row(names, names.index(name), sums, looks[name].remarks)
        for name in experts
    ]
    return Inspection(rows, names, np.nan_to_num(sums.cosines))


def _row(names: list[str], index: int, sums: Sums, remarks: Sequence[str]) -> Row:
    """Return the row of an expert whose weights were read."""
    distance, cosines = float(sums.norms[index]), sums.cosines[index]
    same = [
        f"the same weights as {names[other]}"
        for other in range(index)
        if math.isclose(distance, sums.norms[other], rel_tol=_SAME_LENGTH)
        and (distance == 0 or cosines[other] > 1 - _SAME_DIRECTION)
    ]
    no_step = [] if distance else ["the same weights as the base"]
    return unmeasured(names[index], "yes", "") | {
        "distance": f"{distance:.6g}",
        "relative": f"{distance / sums.base_norm if sums.base_norm else 0.0:.4g}",
        "remarks": "; ".join([*remarks, *no_step, *same]),
    }


def unmeasured(expert: str, merges: str, refusal: str) -> Row:
    """Return the row of an expert whose weights were not read: whether it merges, and why not."""
    row = {"expert": expert, "merges": merges, "distance": "", "relative": "", "remarks": ""}
    return row | {"refusal": refusal}


@dataclass
class _Look:
    """An expert that fits its base: both with the same tensors, and what is to be said of it."""

    base: Checkpoint
    expert: Checkpoint
    remarks: list[str]


def _look(base: Checkpoint, name: str, folder: str | Path, untie: bool) -> _Look:
    opened = open_checkpoint(folder, base)
    finding = compare(base, {name: opened})[0]
    if finding.refusal:
        raise Refusal(finding.refusal)
    start, aligned, facts = align(base, {name: opened}, untie=untie)
    lines = (*finding.warnings, *finding.remarks, *warnings_of(facts))
    return _Look(start, aligned[name], [line.partition(": ")[2] for line in lines])


def _measure(looks: Mapping[str, _Look]) -> tuple[Sums, dict[str, str]]:
    """Read every weight of all experts once; return their sums, and why some could not be read."""
    left, total = dict(looks), Sums.nothing(len(looks))
    refusals: dict[str, str] = {}
    base = next((look.base for look in looks.values()), None)
    for name in tqdm(merged_tensors(base) if base else (), desc="inspecting", disable=None):
        try:
            total.add(_sums(left.values(), name))
        except Refusal as refusal:
            found = {expert: _refusal(look, name) for expert, look in left.items()}
            broken = {expert: why for expert, why in found.items() if why}
            if not broken:
                raise refusal
            refusals |= broken
            total.keep([i for i, expert in enumerate(left) if expert not in broken])
            left = {expert: look for expert, look in left.items() if expert not in broken}
            if not left:
                break
            total.add(_sums(left.values(), name))
    return total, refusals


def _sums(looks: Iterable[_Look], name: str) -> Sums:
    """Compare the task vectors of one tensor."""
    looks = list(looks)
    base = looks[0].base
    return comparing.compare(
        TaskVectors(
            base.stored(name),
            [look.expert.stored(name) for look in looks],
            name=name,
            sources=[str(base.folder), *(str(look.expert.folder) for look in looks)],
        ),
        signs=False,
    )


def _refusal(look: _Look, name: str) -> str:
    """Return why a tensor of one expert cannot be used; nothing where it can."""
    try:
        _sums([look], name)
    except Refusal as refusal:
        return str(refusal)
    return ""


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
    yield "cosines between task vectors, of all weights"
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
