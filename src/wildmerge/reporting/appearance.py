"""How methods are named, ordered and drawn, the same in every table, figure and page.

Colours are Okabe and Ito's (plus Tol's wine), which differ for readers with any common colour
blindness; the paper's methods also have a marker each, so that prints in grey stay readable. Of our
other methods no two share colour and marker; a user's own gets both by its name alone. What methods are
called and which family they belong to, they declare themselves (see `methods.declaration`).
"""

import hashlib
import re
from functools import cache
from typing import NamedTuple

import pandas as pd

from wildmerge.methods import catalogue

WEIGHT_SPACE = "weight-space"
SUBSPACE = "subspace"
FAMILIES = (WEIGHT_SPACE, SUBSPACE)


class Look(NamedTuple):
    """A method's printed name, the family it belongs to, and its colour and marker."""

    label: str
    family: str
    colour: str
    marker: str


DRAWN = {  # colours and markers of the paper's methods, in the paper's order
    "task_arithmetic": ("#0072B2", "o"),
    "model_stock": ("#009E73", "s"),
    "ties": ("#D55E00", "^"),
    "tsv_m": ("#CC79A7", "D"),
    "iso_c": ("#E69F00", "v"),
    "task_arithmetic_sb": ("#56B4E9", "P"),
    "ties_sb": ("#882255", "X"),
}
OTHER_COLOURS = ("#332288", "#117733", "#999933", "#AA4499", "#44AA99", "#661100")
OTHER_MARKERS = ("*", "h", "<", ">", "p", "d")
BASE_COLOUR = "#000000"
# Variants of one method keep its colour and marker and differ by line style and marker filling.
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


_of_study: dict[str, tuple[str, str]] = {}
"""Label and family of the methods of the study whose tables are in use, by the method's name."""


def use(methods: pd.DataFrame) -> None:
    """Call the methods of a study what they declared: a row each, with method, label and family."""
    _of_study.clear()
    for row in methods.itertuples():
        _of_study[str(row.method)] = str(row.label), str(row.family)


def look(method: str) -> Look:
    """Return how a method is named and drawn; a method that nobody declared goes by its name."""
    names = _of_study.get(method) or _of_wildmerge().get(method) or (method, WEIGHT_SPACE)
    return Look(*names, *(DRAWN.get(method) or _drawn(method)))


@cache
def _drawn(method: str) -> tuple[str, str]:
    """Return colour and marker of a method that has none: two of ours never share both."""
    ours = sorted(_of_wildmerge().keys() - DRAWN.keys())
    digest = int(hashlib.sha256(method.encode()).hexdigest(), 16)
    place = ours.index(method) if method in ours else digest
    colours, markers = len(OTHER_COLOURS), len(OTHER_MARKERS)
    return OTHER_COLOURS[place % colours], OTHER_MARKERS[(place + place // colours) % markers]


@cache
def _of_wildmerge() -> dict[str, tuple[str, str]]:
    found = catalogue.discover().values()
    return {method.name: (method.about.label, method.about.family) for method in found}


def variant_label(variant: str, method: str) -> str:
    """Return a variant's printed name: the method's label, then what the variant changes.

    Args:
        variant: as in the study, for example `ties density=0.2`.
        method: the method's name, for example `ties`.
    """
    if variant == method:
        return look(method).label
    if variant.startswith(f"{method} "):
        changes = variant.removeprefix(f"{method} ").replace(" ", ", ").replace("=", " = ")
        return f"{look(method).label} ({changes})"
    return variant


def method_order(method: str) -> tuple[int, str]:
    """Return a sort key: the paper's methods in the paper's order, then others by name."""
    names = list(DRAWN)
    return (names.index(method), "") if method in DRAWN else (len(names), method)


def slug(name: str) -> str:
    """Return a name as a part of a file name; two names never give one."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
