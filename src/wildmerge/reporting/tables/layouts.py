"""The paper's tables as printed: cells in words and digits, in Markdown and in LaTeX."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.printing import UNKNOWN, fixed, markdown
from wildmerge.reporting.tables.paper_tables import sizes
from wildmerge.statistics.rows import GAIN, LOSS, UNDECIDED

REFERENCES = {"base": "the base", "best_expert": "the best single expert"}
CAPTIONS = {
    1: "Weight-space methods against the base",
    2: "Task Arithmetic against the best single expert",
    3: "Subspace methods against the base",
}
BEYOND = {GAIN, LOSS}
PAGE_POINTS = 345  # the width of text on a page of LaTeX's article, the narrowest of its classes
LETTER_POINTS = 4.25  # the width of a digit in footnotesize; most letters are narrower
GAP_POINTS = 6  # between two columns
NO_METHOD = "No such method in this study."


class Cell(NamedTuple):
    """One size of one variant: share above in per cent, difference in points, and what they rest on."""

    share: str = UNKNOWN
    delta: str = UNKNOWN
    verdict: str = UNDECIDED  # gain, loss, equal or undecided
    gap: str = ""  # "14 of 15", where not all subsets are there


class Line(NamedTuple):
    """One variant, with a cell for each of the table's sizes."""

    label: str
    cells: list[Cell]


class Block(NamedTuple):
    """One base, or the mean over all, with the accuracy of the reference in per cent."""

    title: str
    accuracy: str
    lines: list[Line]


def blocks(frame: pd.DataFrame) -> Iterator[Block]:
    """Yield a paper table, as `paper_table` makes it, as printed: a block a base, a line a variant."""
    ns = sizes(frame)
    for (is_average, base), block in frame.groupby(["is_average", "base"], sort=False):
        lines = []
        for (method, variant), line in block.groupby(["method", "variant"], sort=False):
            cells = {row.n: _cell(row) for row in line.itertuples()}
            label = variant_label(str(variant), str(method))
            lines.append(Line(label, [cells.get(n, Cell()) for n in ns]))
        title = "Average over bases" if is_average else str(base)
        yield Block(title, fixed(block["reference_accuracy_pct"].iat[0], 1), lines)


def _cell(row: Any) -> Cell:
    return Cell(
        fixed(row.pct_subsets_above_reference, 0),
        fixed(row.delta_points, 2, "+"),
        str(row.verdict),
        f"{row.subsets} of {row.subsets_planned}" if row.subsets < row.subsets_planned else "",
    )


def reference_of(number: int) -> str:
    """Return what a table compares with, in words."""
    return REFERENCES["best_expert" if number == 2 else "base"]


def to_markdown(number: int, frame: pd.DataFrame) -> str:
    """Return a paper table as Markdown; a cell reads `share above / mean difference`."""
    rows = [
        [f"{block.title} ({block.accuracy} %)", line.label, *map(_in_words, line.cells)]
        for block in blocks(frame)
        for line in block.lines
    ]
    headers = ["Base", "Method", *(f"n = {n}" for n in sizes(frame))]
    table = markdown(headers, rows) if rows else NO_METHOD
    return f"**Table {number}.** {_caption(number)}\n\n{table}\n"


def _in_words(cell: Cell) -> str:
    if cell == Cell():
        return UNKNOWN
    delta = f"**{cell.delta}**" if cell.verdict in BEYOND else cell.delta
    return f"{cell.share} % / {delta}" + (f" ({cell.gap} subsets)" if cell.gap else "")


def to_latex(number: int, frame: pd.DataFrame) -> str:
    r"""Return a paper table as LaTeX, over both columns of a page (needs `\usepackage{booktabs}`).

    Sizes that do not fit beside each other stand in a second panel below the first.
    """
    ns, found = sizes(frame), list(blocks(frame))
    panels = [_panel(found, ns, part) for part in _parts(found, len(ns))] or [NO_METHOD]
    lines = [
        r"\begin{table*}",
        r"\centering\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_escape(_caption(number) + _raised(found))}}}",
        rf"\label{{tab:wildmerge-{number}}}",
        "\n\\par\\medskip\n".join(panels),
        r"\end{table*}",
        "",
    ]
    return "\n".join(lines)


def _panel(found: list[Block], ns: list[int], part: slice) -> str:
    """Some of the sizes as a tabular."""
    count = len(ns[part])
    heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{n = {n}}}" for n in ns[part])
    rules = "".join(rf"\cmidrule(lr){{{2 * i}-{2 * i + 1}}}" for i in range(1, count + 1))
    body = [rf"& {heads} \\", rules, "Method" + r" & \% & $\Delta$" * count + r" \\"]
    for block in found:
        title = rf"\textit{{{_escape(block.title)}}} ({block.accuracy}\,\%)"
        body += [r"\midrule", rf"\multicolumn{{{1 + 2 * count}}}{{l}}{{{title}}} \\"]
        for line in block.lines:
            cells = " & ".join(map(_in_latex, line.cells[part]))
            body.append(rf"{_escape(line.label)} & {cells} \\")
    begin = rf"\begin{{tabular}}{{l{'rr' * count}}}"
    return "\n".join([begin, r"\toprule", *body, r"\bottomrule", r"\end{tabular}"])


def _in_latex(cell: Cell) -> str:
    gap = rf"\rlap{{$^{{{cell.gap.replace(' of ', '/')}}}$}}" if cell.gap else ""
    known = cell.delta != UNKNOWN
    delta = rf"$\mathbf{{{cell.delta}}}$" if cell.verdict in BEYOND else f"${cell.delta}$"
    return f"{cell.share} & {delta}{gap}" if known else f"-- & --{gap}"


def _parts(found: list[Block], count: int) -> list[slice]:
    """Divide the sizes into as few panels as fit, all about equally wide."""
    lines = [line for block in found for line in block.lines]
    labels = max((len(line.label) for line in lines), default=0)
    cells = max((len(c.share) + len(c.delta) + 1 for line in lines for c in line.cells), default=0)
    room = PAGE_POINTS - LETTER_POINTS * labels - GAP_POINTS
    beside = max(1, int(room // (LETTER_POINTS * cells + 2 * GAP_POINTS)))
    panels = -(-count // beside)
    edges = [round(i * count / panels) for i in range(panels + 1)] if panels else []
    return [slice(*ends) for ends in itertools.pairwise(edges)]


def _caption(number: int) -> str:
    return (
        f"{CAPTIONS[number]}: per cent of subsets whose mean accuracy over the benchmarks exceeds "
        f"that of {reference_of(number)}, and mean difference to it in accuracy points. "
        f"The reference's accuracy stands in brackets; n = 1 are the single experts. Bold: a gain or a "
        f"loss beyond noise, after correction for many comparisons."
    )


def _raised(found: list[Block]) -> str:
    """What the caption must say of cells with a gap."""
    gaps = any(cell.gap for block in found for line in block.lines for cell in line.cells)
    return " Raised: how many subsets are there, of those planned." if gaps else ""


def _escape(text: str) -> str:
    """Escape LaTeX's special characters."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
