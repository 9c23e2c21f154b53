"""How methods are named, ordered and drawn, the same in every table, figure and page.

Colours are Okabe and Ito's (plus Tol's wine), which differ for readers with any common colour
blindness; every method also has its own marker, so that prints in grey stay readable. A method
that is not listed here, such as a user's own, gets a look that depends on its name alone.
"""

import hashlib
import re
from typing import NamedTuple

WEIGHT_SPACE = "weight-space"
SUBSPACE = "subspace"
FAMILIES = (WEIGHT_SPACE, SUBSPACE)


class Look(NamedTuple):
    """A method's printed name, the family it belongs to, and its colour and marker."""

    label: str
    family: str
    colour: str
    marker: str


METHODS = {
    "task_arithmetic": Look("Task Arithmetic", WEIGHT_SPACE, "#0072B2", "o"),
    "model_stock": Look("Model Stock", WEIGHT_SPACE, "#009E73", "s"),
    "ties": Look("TIES", WEIGHT_SPACE, "#D55E00", "^"),
    "tsv_m": Look("TSV-M", SUBSPACE, "#CC79A7", "D"),
    "iso_c": Look("Iso-C", SUBSPACE, "#E69F00", "v"),
    "task_arithmetic_sb": Look("TA + SB", SUBSPACE, "#56B4E9", "P"),
    "ties_sb": Look("TIES + SB", SUBSPACE, "#882255", "X"),
}
OTHER_COLOURS = ("#332288", "#117733", "#999933", "#AA4499", "#44AA99", "#661100")
OTHER_MARKERS = ("*", "h", "<", ">", "p", "d")
BASE_COLOUR = "#000000"
# Variants of one method keep its colour and marker and differ by line style and marker filling.
LINE_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))


def look(method: str) -> Look:
    """Return how a method is drawn; an unknown method's look depends on its name alone."""
    if method in METHODS:
        return METHODS[method]
    digest = hashlib.sha256(method.encode()).digest()
    colour = OTHER_COLOURS[digest[0] % len(OTHER_COLOURS)]
    return Look(method, WEIGHT_SPACE, colour, OTHER_MARKERS[digest[1] % len(OTHER_MARKERS)])


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
    names = list(METHODS)
    return (names.index(method), "") if method in METHODS else (len(names), method)


def slug(name: str) -> str:
    """Return a name as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
