"""Tables 1, 2 and 3 of the paper: how often, and by how much, merging beats a reference.

Table 1 holds the weight-space methods (and a user's own), Table 3 the subspace methods, both
against the base; Table 2 holds Task Arithmetic against the best single expert. A row is a cell, as
in the published numbers, so the two can be compared by a join; LaTeX and Markdown lay them out.

Source: arXiv 2511.21437, Tables 1-3.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from wildmerge.reporting.appearance import SUBSPACE, WEIGHT_SPACE, look, variant_label
from wildmerge.reporting.frames import curve_points
from wildmerge.reporting.grids import whole_curves
from wildmerge.reporting.printing import fixed, markdown
from wildmerge.statistics.comparisons import above, mean_difference_points
from wildmerge.statistics.estimates import sample_deviation, wilson_interval

AVERAGE = "average"
REFERENCES = {"base": "the base", "best_expert": "the best single expert"}
CAPTIONS = {
    1: "Weight-space methods against the base",
    2: "Task Arithmetic against the best single expert",
    3: "Subspace methods against the base",
}
COLUMNS = (
    *("table", "reference", "base", "method", "variant", "n", "subsets"),
    *("reference_accuracy_pct", "pct_subsets_above_reference", "pct_low", "pct_high"),
    *("delta_points", "sd_points"),
)
UNKNOWN = "–"


def belongs(number: int, method: str) -> bool:
    """Say whether a method stands in the table of this number."""
    if number == 2:
        return method == "task_arithmetic"
    return look(method).family == (WEIGHT_SPACE if number == 1 else SUBSPACE)


def paper_table(number: int, models: pd.DataFrame) -> pd.DataFrame:
    """Compute one of the paper's tables.

    Args:
        number: 1, 2 or 3.
        models: the study's models, as `frames.model_table` makes them.

    Returns:
        A row a base, variant and size, with the columns of the published numbers, a 95 % Wilson
        interval of the share and the sample standard deviation over subsets; then, for two or more
        bases, the rows of base `average`. Points of a grid made at fewer sizes than its method are left
        out. Without such a method the table has no rows.
    """
    reference = "best_expert" if number == 2 else "base"
    rows = [
        {"table": number, "reference": reference} | _cell(point, members, f"{reference}_accuracy")
        for point, members in curve_points(whole_curves(models))
        if point["n"] > 0 and belongs(number, point["method"])
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).dropna(subset="reference_accuracy_pct")
    if frame["base"].nunique() < 2:
        return frame
    return pd.concat([frame, _average(frame)], ignore_index=True)[list(COLUMNS)]


def _cell(point: dict[str, Any], members: pd.DataFrame, reference: str) -> dict[str, Any]:
    """Compare the members' mean accuracies with the reference; a Wilson interval for the share."""
    accuracies, beat = list(members["accuracy"]), members[reference].iat[0]
    successes, trials = int(above(accuracies, beat).sum()), len(accuracies)
    low, high = wilson_interval(successes, trials)
    return {
        "base": point["base"],
        "method": point["method"],
        "variant": point["variant"],
        "n": point["n"],
        "subsets": trials,
        "reference_accuracy_pct": 100 * beat,
        "pct_subsets_above_reference": 100 * successes / trials,
        "pct_low": 100 * low,
        "pct_high": 100 * high,
        "delta_points": mean_difference_points(accuracies, beat),
        "sd_points": 100 * sample_deviation(accuracies),
    }


def _average(frame: pd.DataFrame) -> pd.DataFrame:
    """The unweighted mean over bases of each cell; sizes that some base lacks are left out."""
    keys = ["table", "reference", "method", "variant", "n"]
    groups = frame.groupby(keys, sort=False)
    means = groups[["reference_accuracy_pct", "pct_subsets_above_reference", "delta_points"]].mean()
    means["subsets"] = groups["subsets"].min()
    whole = groups["base"].nunique() == frame["base"].nunique()
    return means[whole].reset_index().assign(base=AVERAGE)


def sizes(frame: pd.DataFrame) -> list[int]:
    """Return the merge sizes of a paper table, ascending; 1 stands for the single experts."""
    return sorted(int(n) for n in frame["n"].unique())


def layout(
    frame: pd.DataFrame,
) -> Iterator[tuple[str, str, list[tuple[str, list[tuple[str, str]]]]]]:
    """Yield a paper table as printed: a block a base, a line a variant, a pair a size.

    Args:
        frame: as `paper_table` makes it.

    Yields:
        Base, the reference's accuracy in per cent, and lines of (label, [(share, difference), ...])
        with one pair for each of `sizes(frame)`.
    """
    for base, block in frame.groupby("base", sort=False):
        lines = []
        for (method, variant), line in block.groupby(["method", "variant"], sort=False):
            cells = line.set_index("n")
            pairs = [_pair(cells, n) for n in sizes(frame)]
            lines.append((variant_label(str(variant), str(method)), pairs))
        yield str(base), fixed(block["reference_accuracy_pct"].iat[0], 1), lines


def to_markdown(number: int, frame: pd.DataFrame) -> str:
    """Return a paper table as a Markdown table; a cell reads `share above / mean difference`."""
    ns = sizes(frame)
    rows = [
        [
            f"{_title(base)} ({accuracy} %)",
            label,
            *(f"{share} % / {delta}" if share else UNKNOWN for share, delta in pairs),
        ]
        for base, accuracy, lines in layout(frame)
        for label, pairs in lines
    ]
    headers = ["Base", "Method", *map(_size_title, ns)]
    table = markdown(headers, rows) if rows else "No such method in this study."
    return f"**Table {number}.** {_caption(number)}\n\n{table}\n"


def to_latex(number: int, frame: pd.DataFrame) -> str:
    r"""Return a paper table as a LaTeX table (needs `\usepackage{booktabs}`)."""
    ns = sizes(frame)
    body = [r"\multicolumn{1}{c}{No such method in this study.} \\"]
    if ns:
        heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{{_size_title(n)}}}" for n in ns)
        rules = "".join(rf"\cmidrule(lr){{{2 * i}-{2 * i + 1}}}" for i in range(1, len(ns) + 1))
        body = [rf"& {heads} \\", rules, "Method" + r" & \% & $\Delta$" * len(ns) + r" \\"]
        for base, accuracy, rows in layout(frame):
            title = rf"\textit{{{_escape(_title(base))}}} ({accuracy}\,\%)"
            body += [r"\midrule", rf"\multicolumn{{{1 + 2 * len(ns)}}}{{l}}{{{title}}} \\"]
            for label, pairs in rows:
                cells = " & ".join(
                    f"{share} & ${delta}$" if share else "-- & --" for share, delta in pairs
                )
                body.append(rf"{_escape(label)} & {cells} \\")
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_escape(_caption(number))}}}",
        rf"\label{{tab:wildmerge-{number}}}",
        rf"\begin{{tabular}}{{l{'rr' * len(ns)}}}",
        r"\toprule",
        *body,
        *(r"\bottomrule", r"\end{tabular}", r"\end{table}", ""),
    ]
    return "\n".join(lines)


def _pair(cells: pd.DataFrame, n: int) -> tuple[str, str]:
    """The printed share and difference of a size, or two empty texts where there is none."""
    if n not in cells.index:
        return "", ""
    cell = cells.loc[n]
    share, delta = cell["pct_subsets_above_reference"], cell["delta_points"]
    return fixed(share, 0), fixed(delta, 2, "+")


def _caption(number: int) -> str:
    reference = REFERENCES["best_expert" if number == 2 else "base"]
    return (
        f"{CAPTIONS[number]}: per cent of subsets whose mean accuracy over the benchmarks exceeds "
        f"that of {reference}, and mean difference to it in accuracy points. "
        f"The reference's accuracy stands in brackets; n = 1 are the single experts."
    )


def _title(base: str) -> str:
    return "Average" if base == AVERAGE else base


def _size_title(n: int) -> str:
    return f"n = {n}"


def _escape(text: str) -> str:
    """Escape LaTeX's special characters."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
