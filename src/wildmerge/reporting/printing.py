"""How numbers and tables are printed, the same in every table, figure, sentence and page."""

from collections.abc import Sequence

from tabulate import tabulate

MINUS = "\u2212"


def fixed(value: float, digits: int, sign: str = "-") -> str:
    """Return a number with this many decimals, never -0.00.

    Args:
        value: the number.
        digits: decimals to print.
        sign: "+" to print the sign of positive numbers, too.
    """
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, and with a true minus, for text."""
    return fixed(value, digits, "+").replace("-", MINUS)


def per_cent(share: float, digits: int = 1) -> str:
    """Return a share (0 to 1) in per cent."""
    return f"{fixed(100 * share, digits)}\u00a0%"


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]], names: int = 2) -> str:
    """Return a Markdown table.

    Args:
        headers: one text a column.
        rows: one text a column, as printed.
        names: how many columns, from the left, hold names; the others hold numbers.
    """
    align = ["left"] * names + ["right"] * (len(headers) - names)
    text: str = tabulate(rows, headers, tablefmt="pipe", colalign=align, disable_numparse=True)
    return text
