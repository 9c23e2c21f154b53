"""What a reader must know of a study's models: which results are missing, and what was remarked.

Hundreds of models may be missing for one reason, or carry one remark with other numbers; here they are
gathered into a line each.
"""

import re
from typing import Any, NamedTuple

import pandas as pd

from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.tables.study import Tables

POINT = ["base", "kind", "method", "variant", "n"]
NAMED = 3  # models that are named in a line; more are counted


class Gap(NamedTuple):
    """Models of one base, variant and size that are not in the means."""

    what: str
    found: str  # "14 of 15 models"
    why: list[str]


class Remark(NamedTuple):
    """One remark on the models of one variant, or on single models."""

    who: str
    text: str


def gaps(tables: Tables) -> list[Gap]:
    """Return what is missing, a line a base, variant and size, in the order of the tables."""
    lines, there = [], set(tables.models["base"])
    for key, rows in tables.missing.groupby(POINT, sort=False):
        base, kind, method, variant, n = key
        point = tables.models[(tables.models[POINT] == list(key)).all(axis="columns")]
        lost, found = rows["recipe_id"].nunique(), len(point)
        what = f"{base}: " + (f"{variant_label(variant, method)}, n = {n}" if variant else kind)
        if kind == "base":
            what += ", without which nothing of this base can be compared"
        elif base not in there:
            continue  # said by the line of its base
        whys = [f"{_where(rows[rows['why'] == why])}: {why}" for why in rows["why"].unique()]
        lines.append(Gap(what, f"{found} of {found + lost} models", whys))
    return lines


def _where(rows: pd.DataFrame) -> str:
    """Name the models and benchmarks of some missing results."""
    models = list(rows["experts"].where(rows["experts"] != "", rows["base"]).unique())
    labels = list(rows["label"].unique())
    return f"{_some(models)} on {_some(labels)}"


def remarks(tables: Tables) -> list[Remark]:
    """Return the remarks on models, each once for a variant, with its most telling numbers."""
    lines, sorts = [], tables.remarks["remark"].map(_sort)
    merges = tables.remarks["kind"] == "merge"  # the others are named one by one
    single = tables.remarks["recipe_id"].mask(merges, "")
    keys = [single, tables.remarks["variant"], tables.remarks["label"], sorts]
    for _, rows in tables.remarks.groupby(keys, sort=False):
        first, worst = next(rows.itertuples()), max(rows["remark"], key=_largest_share)
        who = _name(first)
        if first.kind == "merge":
            made = tables.models[tables.models["variant"] == first.variant]
            all_of_it = {*made["recipe_id"], *rows["recipe_id"]}
            who += f", {rows['recipe_id'].nunique()} of {len(all_of_it)} models"
        lines.append(Remark(who + (f", on {first.label}" if first.label else ""), worst))
    return lines


def _name(row: Any) -> str:
    """Name a variant, or a single base or expert."""
    if row.kind == "merge":
        return variant_label(row.variant, row.method)
    return f"expert {row.experts} of {row.base}" if row.experts else f"base {row.base}"


def _sort(remark: str) -> str:
    """Return a remark without its numbers, brackets and lists: what it says of many models."""
    return re.sub(r"[\d.]+", "", re.split(r"[(:]", remark)[0])


def _largest_share(remark: str) -> float:
    return max((float(share) for share in re.findall(r"(\d+(?:\.\d+)?) ?%", remark)), default=0.0)


def _some(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
