"""Loops that draw random numbers and use them, compiled for the CPU; see `wildmerge.vectors.draws`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wildmerge.vectors.draws import MULTIPLIERS, ROUNDS, STEPS
from wildmerge.vectors.loops import TILE, ZERO, Floats, compiled

_M0, _M1 = map(np.uint64, MULTIPLIERS)
_W0, _W1 = map(np.uint32, STEPS)
_HALF = np.uint64(32)


@compiled()
def draw(key: NDArray[np.uint32], first: int, words: NDArray[np.uint32]) -> None:
    """Fill `words` (4 b,) with those of `b` blocks from `first` on: Philox4x32-10, see `draws`."""
    for b in range(len(words) // 4):
        block = np.uint64(first + b)
        x0, x1 = np.uint32(block), np.uint32(block >> _HALF)
        k0, k1, x2, x3 = key[0], key[1], key[2], key[3]
        for _ in range(ROUNDS):
            p, q = _M0 * np.uint64(x0), _M1 * np.uint64(x2)
            x0, x1 = np.uint32(np.uint32(q >> _HALF) ^ x1 ^ k0), np.uint32(q)
            x2, x3 = np.uint32(np.uint32(p >> _HALF) ^ x3 ^ k1), np.uint32(p)
            k0, k1 = np.uint32(k0 + _W0), np.uint32(k1 + _W1)
        words[4 * b], words[4 * b + 1], words[4 * b + 2], words[4 * b + 3] = x0, x1, x2, x3


@compiled()
def keep(row: Floats, key: NDArray[np.uint32], first: int, limit: int) -> None:
    """Zero the entries of (c,), from block `first` on, whose word is not below `limit`."""
    words = np.empty(TILE, np.uint32)
    for start in range(0, len(row), TILE):
        part = row[start : start + TILE]
        draw(key, first + start // 4, words)
        for j in range(len(part)):
            part[j] = part[j] if words[j] < limit else ZERO
