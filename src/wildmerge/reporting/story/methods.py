"""The story of a study's methods: how each did, which lead, and whether more experts help."""

import math
from typing import Any

import pandas as pd

from wildmerge.reporting.appearance import look, variant_label
from wildmerge.reporting.printing import fixed, signed
from wildmerge.reporting.story.sentences import (
    cells,
    corrected,
    count,
    difference,
    interval,
    name,
    select,
    series,
    share,
)
from wildmerge.reporting.tables.grids import SMALLEST, Grid, find_grids, whole_curves
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.estimates import above
from wildmerge.statistics.of_methods import CHOICE, PAIR, STEP
from wildmerge.statistics.of_sizes import SIZE
from wildmerge.statistics.rows import GAIN, LOSS, SIGNIFICANT

WIDE = 60
"""Points of per cent from which on an interval of a share says next to nothing."""


def methods(tables: Tables) -> list[str]:
    """One sentence a variant: how often and how much it beats base and best expert."""
    sentences = []
    merges, points = tables.models[tables.models["kind"] == "merge"], cells(tables.comparisons)
    for (method, variant), rows in whole_curves(points).groupby(["method", "variant"], sort=False):
        models = merges[merges["variant"] == variant]
        over = int(above(models["accuracy"], models["base_accuracy"]).sum())
        text = (
            f"{variant_label(str(variant), str(method))}: {share(over, len(models))} merged models "
            f"scored above their base; {count(rows, GAIN)} of {len(rows)} means over subsets gain and "
            f"{count(rows, LOSS)} lose"
        )
        text += _at_the_ends(tables.comparisons, rows) + "."
        against = corrected(tables.comparisons)
        against = against[against["variant"] == variant]
        if len(against):
            text += (
                f" Against the best single expert, {count(against, GAIN)} of {len(against)} gain and "
                f"{count(against, LOSS)} lose."
            )
        sentences.append(text)
    return sentences


def _at_the_ends(compared: pd.DataFrame, rows: pd.DataFrame) -> str:
    """The mean difference at the smallest and the largest size, over bases where there are several."""
    if rows["base"].nunique() > 1:
        variant = rows["variant"].iat[0]
        rows = select(compared, what=SIZE, reference="base", is_average=True, variant=variant)
    if rows.empty:
        return ""
    ordered = rows.sort_values("n", kind="stable")
    ends = [ordered.iloc[0], *([ordered.iloc[-1]] if len(ordered) > 1 else [])]
    return "; the mean difference is " + " and ".join(
        f"{signed(row['estimate_points'])} points at n = {row['n']}" for row in ends
    )


def leaders(tables: Tables) -> list[str]:
    """The leading variant of each base and size, and those that cannot be distinguished from it."""
    return [
        _leader(tables, rows)
        for _, rows in cells(tables.comparisons).groupby(["base", "n"], sort=False)
    ]


def _leader(tables: Tables, rows: pd.DataFrame) -> str:
    ranked = list(rows.sort_values("estimate_points", ascending=False, kind="stable").itertuples())
    first = ranked[0]
    text = f"On {first.base} at n = {first.n}, {name(first)}"
    if len(ranked) == 1:
        return f"{text} differs by {difference(first)}{_share(first)}."
    text += f" leads with {difference(first)}"
    pairs = select(tables.comparisons, what=PAIR, base=first.base, n=first.n)
    equal = [name(row) for row in ranked[1:] if not _apart(pairs, first.variant, row.variant)]
    behind = len(ranked) - 1 - len(equal)
    if equal:
        text += f"; {series(equal)} cannot be distinguished from it"
    if behind:
        text += f"; {behind} {'others are' if behind > 1 else 'other is'} behind"
    comparisons = "comparison" if len(pairs) == 1 else "comparisons"
    return f"{text} ({len(pairs)} {comparisons}, Holm){_share(first)}."


def _apart(pairs: pd.DataFrame, one: str, other: str) -> bool:
    """Say whether two variants differ beyond noise."""
    either = pairs["variant"].isin([one, other]) & pairs["reference_name"].isin([one, other])
    return bool((pairs.loc[either, "p_adjusted"] <= SIGNIFICANT).any())


def _share(row: Any) -> str:
    """How many of its subsets are above the base, and what that says about all of them."""
    low, high = row.share_low_pct, row.share_high_pct
    if math.isnan(low):  # a single subset
        return ""
    text = f". {row.subsets_above:.0f} of {row.subsets:.0f} subsets scored above the base"
    if high - low > WIDE:
        return f"{text}; the items are too few to say which share is truly above"
    of_all = (
        f"of all {row.subsets_all:.0f}, between" if row.subsets_all > row.subsets else "between"
    )
    return f"{text}; {of_all} {fixed(low, 0)} % and {fixed(high, 0)} % are truly above it (95 %)"


def steps(tables: Tables) -> list[str]:
    """What each further expert adds, between the two largest sizes, on each base."""
    sentences = []
    for base, rows in select(tables.comparisons, what=STEP).groupby("base", sort=False):
        for (size, n), same in rows.groupby(["reference_name", "n"], sort=False):
            clear = same[same["verdict"].isin([GAIN, LOSS])]
            changes = [
                f"the mean of {name(row)} changes by {signed(row.estimate_points)} points an expert "
                f"({interval(row)})"
                for row in clear.itertuples()
            ]
            rest = len(same) - len(clear)
            if rest:
                whom = "the others" if changes else "any method" if rest > 1 else name(same.iloc[0])
                changes.append(f"there is no sign that more experts still help or harm with {whom}")
            start = size.removeprefix("n = ")
            sentences.append(f"On {base}, from n = {start} to n = {n}, {series(changes)}.")
    return sentences


def hyperparameters(tables: Tables) -> list[str]:
    """The leading value of each grid, on each base and at each size, and those like it."""
    sentences = []
    for grid in find_grids(tables.models):
        points = cells(tables.comparisons)
        points = points[points["variant"].isin(grid.values)]
        for _, rows in points.groupby(["base", "n"], sort=False):
            if len(rows) >= SMALLEST:
                sentences.append(_leading_value(tables, rows, grid))
    return sentences


def _leading_value(tables: Tables, rows: pd.DataFrame, grid: Grid) -> str:
    ranked = list(rows.sort_values("estimate_points", ascending=False, kind="stable").itertuples())
    first = ranked[0]
    pairs = select(tables.comparisons, what=PAIR, base=first.base, n=first.n)
    behind = sum(_apart(pairs, first.variant, row.variant) for row in ranked[1:])
    text = (
        f"On {first.base} at n = {first.n}, {look(grid.method).label} does best with {grid.parameter} = "
        f"{grid.values[first.variant]:g}: {difference(first)}; {len(ranked) - 1 - behind} of "
        f"{len(ranked) - 1} other values cannot be distinguished from it (Holm)"
    )
    name_of = f"{grid.method}: {grid.parameter}"
    chosen = select(tables.comparisons, what=CHOICE, base=first.base, n=first.n, variant=name_of)
    for row in chosen.itertuples():
        text += (
            f". A value chosen by one half of the items differs by {difference(row)} on the other"
        )
    return f"{text}."
