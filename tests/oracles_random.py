"""The methods that draw at random once more, in whole numbers of Python and float64, sharing no code.

Experts are known as the product's tests know them: "expert 1", "expert 2", ...
"""

import hashlib
from functools import cache

import numpy as np

import oracles


def philox(key, counter):
    """One block of Philox4x32-10, as the paper writes it."""
    (k0, k1), (x0, x1, x2, x3) = key, counter
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * x0, 2**32)
        high1, low1 = divmod(0xCD9E8D57 * x2, 2**32)
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [x0, x1, x2, x3]


@cache
def words(count, tensor, expert, seed):
    """The words of a tensor's first elements."""
    digest = hashlib.sha256(f"wildmerge/1\n{seed}\n{expert}\n{tensor}".encode()).digest()
    k0, k1, c2, c3 = (int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    blocks = [philox((k0, k1), (block, 0, c2, c3)) for block in range(-(-count // 4))]
    return np.array(blocks).ravel()[:count]


def dropped(deltas, tensor, chances, *, seed=0, rescale="probability"):
    """The task vectors with each entry kept by its chance; `chances` are theirs for each expert."""
    kept = []
    for i, (delta, q) in enumerate(zip(deltas, chances, strict=True), 1):
        drawn = words(delta.size, tensor, f"expert {i}", seed).reshape(delta.shape)
        left = delta * (drawn < np.floor(q * 2.0**32))
        if rescale == "probability":
            left = left / q
        elif rescale == "l1" and np.abs(left).sum() >= 1e-7:
            left = left * np.abs(delta).sum() / np.abs(left).sum()
        kept.append(left)
    return kept


def dare_linear(deltas, tensor, *, density=0.5, seed=0, rescale="probability", **how):
    chances = [np.full(d.shape, density) for d in deltas]
    kept = dropped(deltas, tensor, chances, seed=seed, rescale=rescale)
    return oracles.task_arithmetic(kept, **how)


def dare_ties(deltas, tensor, *, density=0.5, seed=0, rescale="probability", **how):
    chances = [np.full(d.shape, density) for d in deltas]
    kept = dropped(deltas, tensor, chances, seed=seed, rescale=rescale)
    return oracles.ties(kept, density=1.0, **how)


def della_chances(delta, density, epsilon):
    """The chance of each entry, by its rank in its row; of equal ones the first ranks highest."""
    rows = delta.reshape(-1, delta.shape[-1])
    chances = np.empty_like(rows)
    for row, chance in zip(rows, chances, strict=True):
        ascending = sorted(range(len(row)), key=lambda j: (abs(row[j]), -j))
        for rank, j in enumerate(ascending):
            share = rank / (len(row) - 1) if len(row) > 1 else 0.5
            chance[j] = density - epsilon + share * 2 * epsilon
    return chances.reshape(delta.shape)


def della_linear(
    deltas, tensor, *, density=0.5, epsilon=0.15, seed=0, rescale="probability", **how
):
    chances = [della_chances(d, density, epsilon) for d in deltas]
    kept = dropped(deltas, tensor, chances, seed=seed, rescale=rescale)
    return oracles.task_arithmetic(kept, **how)


def della(deltas, tensor, *, density=0.5, epsilon=0.15, seed=0, rescale="probability", **how):
    chances = [della_chances(d, density, epsilon) for d in deltas]
    kept = dropped(deltas, tensor, chances, seed=seed, rescale=rescale)
    return oracles.ties(kept, density=1.0, **how)
