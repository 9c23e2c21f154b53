"""The one exception for input that wildmerge will not work on.

A `Refusal` carries a single sentence for the user: what is wrong, where, and what to do.
The command line prints it on stderr and exits with 1; anything else that escapes is a bug.
"""


class Refusal(Exception):
    """Bad input, explained in one line: what, where, and the remedy."""
