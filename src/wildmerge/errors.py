"""The one exception for input that wildmerge will not work on, and the words that refusals share.

A `Refusal` carries a single sentence for the user: what is wrong, where, and what to do.
The command line prints it on stderr and exits with 1; anything else that escapes is a bug.
"""

import difflib
from collections.abc import Iterable


class Refusal(Exception):
    """Bad input, explained in one line: what, where, and the remedy."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, with the nearest known name or the whole list."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"unknown {kind} '{name}'; did you mean '{close[0]}'?"
    return f"unknown {kind} '{name}'; known: {', '.join(known) if known else 'none'}"
