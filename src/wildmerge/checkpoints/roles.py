"""What a tensor is for, by its name and shape; importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

Role = Literal["matrix", "embedding", "head", "other"]

_EMBEDDINGS = {"embed_tokens", "wte", "word_embeddings", "embed_in"}
_HEADS = {"lm_head", "embed_out"}


def role_of(name: str, shape: Sequence[int]) -> Role:
    """Return how a tensor is treated, by its name and shape (one part of the dotted name decides)."""
    parts = set(name.split("."))
    if parts & _EMBEDDINGS:
        return "embedding"
    if parts & _HEADS:
        return "head"
    return "matrix" if len(shape) == 2 else "other"


def embedding_of(names: Iterable[str]) -> str | None:
    """Return the name of the weight that holds a row for every token, if it is there."""
    return next((n for n in names if n.endswith("weight") and role_of(n, ()) == "embedding"), None)


def head_of(names: Iterable[str]) -> str | None:
    """Return the name of the output head's weight; None where the embedding is the head."""
    return next((n for n in names if n.endswith("weight") and role_of(n, ()) == "head"), None)
