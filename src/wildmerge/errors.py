"""The one exception for input that wildmerge will not work on, and the words that refusals share.

A `Refusal` carries a single sentence for the user: what is wrong, where, and what to do.
The command line prints it on stderr and exits with 1; anything else that escapes is a bug.
"""

import difflib
from collections.abc import Iterable


class Refusal(Exception):
    """Bad input, explained in one line: what, where, and the remedy."""


SHOWN = 30
"""So many known names are listed when a name is unknown; lm-eval alone knows 14,000 tasks."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Say that `name` is not a known `kind`, with the nearest known name or a list of them."""
    known = list(known)
    # so close that it is a typing error: `dare_ties` is no `ties`
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if close:
        return f"unknown {kind} '{name}'; did you mean '{close[0]}'?"
    listed = ", ".join(known[:SHOWN]) if known else "none"
    more = f" and {len(known) - SHOWN:,} more" if len(known) > SHOWN else ""
    return f"unknown {kind} '{name}'; known: {listed}{more}"


def one_line(text: str) -> str:
    """Return a message in which line breaks, escape sequences and the like are visible characters."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
