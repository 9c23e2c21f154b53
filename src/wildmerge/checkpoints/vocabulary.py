"""Which row of an expert's embedding belongs to which row of the base's: as their tokenizers say.

An embedding (and an output head) has a row a token, and the tokenizer says which. Rows are matched by
the tokens' text in both tokenizer.json files, never by position alone.
"""

from __future__ import annotations

import filecmp
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from wildmerge.errors import Refusal

KEPT = -1
"""In `Rows.counterparts`: this row of the base has no counterpart."""


class Rows(NamedTuple):
    """For each row of the base's embedding, the expert's row of the same token, or KEPT.

    `shared` rows have a counterpart; the base's other rows are `kept` as they are, and the expert's
    other rows `dropped`.
    """

    counterparts: tuple[int, ...]
    shared: int
    kept: int
    dropped: int


def match_rows(
    base: Path | None, expert: Path | None, base_rows: int, expert_rows: int
) -> Rows | None:
    """Match the rows of an expert with the base's.

    Args:
        base: the base's tokenizer.json.
        expert: the expert's.
        base_rows: rows of the base's embedding.
        expert_rows: rows of the expert's.

    Returns:
        None where both have the same rows in the same order, as almost always.

    Raises:
        Refusal: the numbers of rows differ, and no tokenizer says how; or nearly no token is shared.
    """
    same_size = base_rows == expert_rows
    if base is None or expert is None:
        if same_size:
            return None
        raise Refusal(f"{base_rows} and {expert_rows} rows cannot be matched without tokenizers")
    if same_size and (base == expert or filecmp.cmp(base, expert, shallow=False)):
        return None
    states = [(path, path.stat().st_mtime_ns) for path in (base, expert)]
    return _match(*states, base_rows, expert_rows)


@lru_cache(maxsize=64)  # the merges of a process share their experts
def _match(
    base: tuple[Path, int], expert: tuple[Path, int], base_rows: int, expert_rows: int
) -> Rows | None:
    ours, theirs = _vocabulary(base), _vocabulary(expert)
    ours = {token: row for token, row in ours.items() if row < base_rows}
    theirs = {token: row for token, row in theirs.items() if row < expert_rows}
    if base_rows == expert_rows and _agree(ours, theirs):
        return None
    counterparts = [KEPT] * base_rows
    for token, row in ours.items():
        counterparts[row] = theirs.get(token, KEPT)
    shared = base_rows - counterparts.count(KEPT)
    if 2 * shared < min(len(ours), len(theirs)):
        raise Refusal(
            f"{expert[0].parent}: its tokenizer shares only {shared} tokens with the base's; not an "
            "expert of this base"
        )
    dropped = expert_rows - len(set(counterparts) - {KEPT})
    return Rows(tuple(counterparts), shared, base_rows - shared, dropped)


def _agree(ours: dict[str, int], theirs: dict[str, int]) -> bool:
    """Return whether no row means one token here and another there; tokens may be added or missing."""
    tokens = {row: token for token, row in theirs.items()}
    return all(
        theirs.get(token, row) == row and tokens.get(row, token) == token
        for token, row in ours.items()
    )


@lru_cache(maxsize=2)
def _vocabulary(file: tuple[Path, int]) -> dict[str, int]:
    """Return token -> row of a tokenizer.json (a path and its time of change)."""
    from tokenizers import Tokenizer

    path = file[0]
    try:
        return dict(Tokenizer.from_file(str(path)).get_vocab(with_added_tokens=True))
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).splitlines()[0]
        raise Refusal(
            f"{path}: no tokenizer can be read from it ({reason}); fetch it again"
        ) from None
