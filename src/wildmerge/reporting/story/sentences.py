"""Parts of sentences about comparisons, and the selection of their rows."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.printing import per_cent, signed
from wildmerge.statistics.of_sizes import HALVES, SIZE, TRIED
from wildmerge.statistics.rows import GAIN, LOSS


def select(compared: pd.DataFrame, **wanted: Any) -> pd.DataFrame:
    """Return the comparisons whose columns have these values."""
    kept = compared
    for column, value in wanted.items():
        kept = kept[kept[column] == value]
    return kept


def cells(compared: pd.DataFrame) -> pd.DataFrame:
    """Return every base, variant and size of merged models against its base, over all benchmarks."""
    found = select(compared, what=SIZE, reference="base", label="", is_average=False)
    return found[found["n"] > 1]


def corrected(compared: pd.DataFrame) -> pd.DataFrame:
    """Return every base, variant and size against the best expert, chosen by other items."""
    return select(compared, what=SIZE, reference="best_expert", estimator=HALVES)


def count(compared: pd.DataFrame, verdict: str) -> int:
    """Return how many comparisons have this verdict."""
    return int((compared["verdict"] == verdict).sum())


def difference(row: Any) -> str:
    """Return "+1.80 points (95 % interval +0.40 to +3.20)", and of which subsets it is."""
    return f"{signed(row.estimate_points)} points ({interval(row)})"


def interval(row: Any) -> str:
    """Return the 95 % interval in words, and of which subsets it is."""
    text = f"95 % interval {signed(row.low_points)} to {signed(row.high_points)}"
    if row.over == TRIED and row.subsets < row.subsets_all:
        text += f", for the {plural(int(row.subsets), 'subset')} tried only"
    return text


def plural(number: int, name: str) -> str:
    """Return "1 subset" or "1,200 subsets"."""
    return f"{number:,} {name}" + ("" if number == 1 else "s")


def name(row: Any) -> str:
    """Return the printed name of a comparison's variant."""
    return variant_label(row.variant, row.method)


def series(parts: Sequence[str]) -> str:
    """Return "a, b and c"."""
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def beyond(row: Any) -> str:
    """Return what the verdict on a difference says, in words."""
    return {GAIN: "a gain", LOSS: "a loss"}.get(row.verdict, "within noise")


def share(part: int, whole: int) -> str:
    """Return "3 of 4 (75 %)"."""
    return f"{part} of {whole} ({per_cent(part / whole, 0)})"
