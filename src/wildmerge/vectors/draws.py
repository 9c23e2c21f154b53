"""Random numbers for the elements of task vectors, whatever chunk, thread, order or device asks.

A counter-based generator: element j of an expert's tensor has a word of 32 bits that follows from the
seed, the expert's content, the tensor's name and j alone. Masks of different subsets and methods are so
drawn alike, and can be compared pair by pair.

Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011: Philox4x32-10.
"""

from __future__ import annotations

import hashlib
import struct
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

WORDS = 1 << 32
"""How many values a word can take."""
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


class Draws:
    """The random words of one expert's tensor.

    Args:
        seed: chosen by the user.
        expert: identity of the expert's content, never its place.
        tensor: the tensor's name in the base.
    """

    def __init__(self, seed: int, expert: str, tensor: str) -> None:
        text = f"wildmerge/1\n{seed}\n{expert}\n{tensor}"
        self._key = struct.unpack("<4I", hashlib.sha256(text.encode()).digest()[:16])

    def words(self, at: slice, device: torch.device | str = "cpu") -> Tensor:
        """Return the words of elements `at` of the flattened tensor, (c,) int64, in [0, WORDS)."""
        first, last = at.start // 4, -(-at.stop // 4)
        if loops := _loops(torch.device(device)):
            drawn = np.empty(4 * (last - first), np.uint32)
            loops.draw(np.array(self._key, np.uint32), first, drawn)
            found = torch.from_numpy(drawn.astype(np.int64))
        else:
            found = _draw(self._key, torch.arange(first, last, device=device))
        return found[at.start - 4 * first :][: at.stop - at.start]

    def keep_(self, delta: Tensor, at: slice, share: float) -> None:
        """Zero, in place, the entries of a chunk (c,) but for those that a chance of `share` keeps."""
        limit = int(share * WORDS)
        if at.start % 4 == 0 and (loops := _loops(delta.device)):
            loops.keep(delta.numpy(), np.array(self._key, np.uint32), at.start // 4, limit)
        else:
            delta.masked_fill_(self.words(at, delta.device) >= limit, 0)


def _loops(device: torch.device) -> ModuleType | None:
    """Return the compiled loops, imported when they are first needed, for a CPU."""
    if device.type != "cpu":
        return None
    from wildmerge.vectors import drawing_loops

    return drawing_loops


def _draw(key: tuple[int, ...], blocks: Tensor) -> Tensor:
    """Return the four words of each block (b,), (4 b,) int64: what `loops.draw` does, for any device.

    Products are taken modulo 2^64, which keeps their bits.
    """
    low = WORDS - 1
    k0, k1, third, fourth = key
    x0, x1 = blocks & low, blocks >> 32
    x2, x3 = torch.full_like(blocks, third), torch.full_like(blocks, fourth)
    for _ in range(ROUNDS):
        p, q = x0 * MULTIPLIERS[0], x2 * MULTIPLIERS[1]
        x0, x1 = (q >> 32 & low) ^ x1 ^ k0, q & low
        x2, x3 = (p >> 32 & low) ^ x3 ^ k1, p & low
        k0, k1 = k0 + STEPS[0] & low, k1 + STEPS[1] & low
    return torch.stack([x0, x1, x2, x3], 1).reshape(-1)
