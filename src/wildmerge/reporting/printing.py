"""How numbers and tables are printed, the same in every table, figure, sentence and page.

A number is rounded once, here, from the full precision that the tables hold: half to even, by its
decimal digits, so that whoever rounds the CSV by hand finds what is printed.
"""

import html
import math
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal

from tabulate import tabulate

MINUS = "\u2212"
UNKNOWN = "\u2013"


def fixed(value: float, digits: int, sign: str = "-") -> str:
    """Return a number with this many decimals, never -0.00; a dash for an unknown one.

    Args:
        value: the number; NaN is unknown.
        digits: decimals to print.
        sign: "+" to print the sign of positive numbers, too.
    """
    if not math.isfinite(value):
        return UNKNOWN
    place = Decimal(1).scaleb(-digits)
    rounded = Decimal(repr(float(value))).quantize(place, ROUND_HALF_EVEN)
    return f"{abs(rounded) if rounded.is_zero() else rounded:{sign}f}"


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, and with a true minus, for text."""
    return fixed(value, digits, "+").replace("-", MINUS)


def per_cent(share: float, digits: int = 1) -> str:
    """Return a share (0 to 1) in per cent."""
    return f"{fixed(100 * share, digits)}\u00a0%" if math.isfinite(share) else UNKNOWN


def significant(value: float, digits: int) -> str:
    """Return a number with this many significant digits; a dash for an unknown one."""
    if not math.isfinite(value):
        return UNKNOWN
    context = Context(prec=digits, rounding=ROUND_HALF_EVEN)
    return f"{context.create_decimal(repr(float(value))):g}"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]], names: int = 2) -> str:
    """Return a Markdown table.

    Args:
        headers: one text a column.
        rows: one text a column, as printed.
        names: how many columns, from the left, hold names, which are escaped; the others hold numbers.
    """
    align = ["left"] * names + ["right"] * (len(headers) - names)
    safe = [[*map(in_markdown, row[:names]), *row[names:]] for row in rows]
    text: str = tabulate(safe, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    return text


def in_markdown(text: str) -> str:
    """Escape what Markdown would read as HTML, as emphasis or as the border of a cell."""
    escaped = html.escape(text, quote=False)
    return "".join("\\" + letter if letter in "|*_`[]" else letter for letter in escaped)
