"""Loops over chunks of task vectors, compiled for the CPU at hand by numba.

As chains of whole-array operations they would pass through memory once an operation. They run without
Python's lock, reading included: where two threads took turns at it for each piece of a file, a third of
the time went into waiting. What a GPU runs in their place stands in `wildmerge.vectors.elementwise`.

Each is compiled when it is first called and kept beside this file, as Python keeps what it compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Wide = NDArray[np.float64]
Places = NDArray[np.int64]
Loop = TypeVar("Loop", bound=Callable[..., Any])
ZERO, _ONE, _TWO = np.float32(0), np.float32(1), np.float32(2)
TILE = 1 << 12
"""Columns that are worked on at once: some float32 rows of them fit the first or second cache."""
_PIECE = 1 << 16
"""Weights that are read at once: they are still in the second cache when they are used."""


def compiled(reassociate: bool = False) -> Callable[[Loop], Loop]:
    """Compile a function; with `reassociate`, its sums are added up in the order that is fastest.

    The order depends on the kind of CPU, never on threads or chunks.
    """
    flags = {"reassoc", "contract"} if reassociate else set()

    def decorate(function: Loop) -> Loop:
        try:
            compiled = numba.njit(function, nogil=True, fastmath=flags, cache=True)
        except RuntimeError:  # neither this folder nor the user's may be written to
            compiled = numba.njit(function, nogil=True, fastmath=flags)
        return cast(Loop, compiled)

    return decorate


_pread = numba.types.ExternalFunction(  # of the C library: reading needs no Python, either
    "pread",
    numba.types.intp(numba.types.int32, numba.types.uintp, numba.types.uintp, numba.types.int64),
)


@compiled()
def _read(file: int, offset: int, bits: NDArray[np.uint16]) -> bool:
    """Fill `bits` from a file; return whether it could be done."""
    done, size = 0, 2 * len(bits)
    while done < size:
        count = _pread(file, bits.ctypes.data + done, size - done, offset + done)
        if count <= 0:
            return False
        done += count
    return True


@compiled(reassociate=True)
def subtract(files: Places, offsets: Places, base: Floats, out: Floats) -> float | np.float32:
    """Read bfloat16 weights of n experts, from `offsets` (n,) of `files` (n,), and subtract `base` (c,).

    Returns:
        The sum of `out` (n, c): not finite when an element is not, or when something cannot be read.
    """
    total, bits = ZERO, np.empty(_PIECE, np.uint16)
    for start in range(0, len(base), _PIECE):
        origin = base[start : start + _PIECE]
        for i in range(len(files)):
            deltas, stored = out[i, start : start + _PIECE], bits[: len(origin)]
            if not _read(files[i], offsets[i] + 2 * start, stored):
                return np.nan
            for j in range(len(origin)):
                # the upper half of a float32 is a bfloat16
                value = np.uint32(np.uint32(stored[j]) << np.uint32(16)).view(np.float32)
                deltas[j] = value - origin[j]
                total += deltas[j]
    return total


@compiled()
def add_up(files: Places, offsets: Places, base: Floats, out: Floats) -> bool:
    """The same, but write the sum of the task vectors to `out` (c,); False if one cannot be read."""
    bits = np.empty(_PIECE, np.uint16)
    for start in range(0, len(base), _PIECE):
        origin, total = base[start : start + _PIECE], out[start : start + _PIECE]
        stored = bits[: len(origin)]
        for j in range(len(total)):
            total[j] = ZERO
        for i in range(len(files)):
            if not _read(files[i], offsets[i] + 2 * start, stored):
                return False
            for j in range(len(origin)):
                value = np.uint32(np.uint32(stored[j]) << np.uint32(16)).view(np.float32)
                total[j] += value - origin[j]
    return True


@compiled(reassociate=True)
def inner_products(deltas: Floats, block: int, out: NDArray[np.float64]) -> None:
    """Add the inner products of the rows of (n, c) to `out` (n, n), in float32 within whole blocks."""
    n = len(deltas)
    for start in range(0, deltas.shape[1] // block * block, block):
        for i in range(n):
            row = deltas[i, start : start + block]
            for k in range(0, i + 1, 2):  # two at once: a row is loaded for both
                after = min(k + 1, i)
                one, other = deltas[k, start : start + block], deltas[after, start : start + block]
                first = second = ZERO
                for j in range(len(row)):
                    first += row[j] * one[j]
                    second += row[j] * other[j]
                out[i, k] += first
                if after > k:
                    out[i, after] += second
    for i in range(n):
        for k in range(i):
            out[k, i] = out[i, k]


@compiled(reassociate=True)
def add_moments(deltas: Floats, block: int, out: Wide) -> None:
    """Add sums of magnitudes and of squares of the rows of (n, c) to `out` (2, n), block by block."""
    for start in range(0, deltas.shape[1], block):
        for i in range(len(deltas)):
            row, size, square = deltas[i, start : start + block], 0.0, 0.0
            for j in range(len(row)):
                value = np.float64(row[j])
                size += abs(value)
                square += value * value
            out[0, i] += size
            out[1, i] += square


@compiled()
def variance(deltas: Floats, out: Floats) -> None:
    """Fill `out` (c,) with the population variance over the rows of (n, c)."""
    n = len(deltas)
    mean, squares = np.empty(TILE), np.empty(TILE)
    for start in range(0, len(out), TILE):
        found = out[start : start + TILE]
        width = len(found)
        for j in range(width):
            mean[j] = squares[j] = 0.0
        for i in range(n):
            row = deltas[i, start : start + TILE]
            for j in range(width):
                mean[j] += row[j]
        for j in range(width):
            mean[j] /= n
        for i in range(n):
            row = deltas[i, start : start + TILE]
            for j in range(width):
                squares[j] += (row[j] - mean[j]) * (row[j] - mean[j])
        for j in range(width):
            found[j] = squares[j] / n


@compiled()
def split(row: Floats, low: np.float32, high: np.float32, inside: Floats) -> tuple[int, int]:
    """Count magnitudes above `high`, and copy those in [low, high] to `inside` (c,); return how many."""
    above = count = 0
    for j in range(len(row)):
        size = abs(row[j])
        above += size > high
        inside[count] = size  # stays if it counts: a branch would be guessed wrong too often
        count += (size >= low) & (size <= high)
    return above, count


@compiled()
def elect(deltas: Floats, weights: Floats, total: Floats, voters: Floats) -> None:
    """See `elementwise.elect`; fills `total` and `voters` (c,) from `deltas` (n, c)."""
    size = np.empty(TILE, np.float32)
    plus, minus = np.empty_like(size), np.empty_like(size)
    for start in range(0, len(total), TILE):
        agreeing, chosen = total[start : start + TILE], voters[start : start + TILE]
        width = len(agreeing)
        for j in range(width):
            agreeing[j] = size[j] = plus[j] = minus[j] = ZERO
        for i in range(len(deltas)):
            row, weight = deltas[i, start : start + TILE], weights[i]
            for j in range(width):
                entry = weight * row[j]
                agreeing[j] += entry
                size[j] += abs(entry)
                plus[j] += weight if entry > 0 else ZERO
                minus[j] += weight if entry < 0 else ZERO
        for j in range(width):
            up = agreeing[j] >= 0
            chosen[j] = plus[j] if up else minus[j]
            agreeing[j] = (agreeing[j] + (size[j] if up else -size[j])) / _TWO


@compiled()
def count_wanted(deltas: Floats, total: Floats, factor: np.float32, counts: Floats) -> None:
    """See `elementwise.count_wanted`; fills `counts` (c,) from `deltas` (n, c)."""
    for start in range(0, len(total), TILE):
        whole, found = total[start : start + TILE], counts[start : start + TILE]
        for j in range(len(whole)):
            found[j] = ZERO
        for i in range(len(deltas)):
            row = deltas[i, start : start + TILE]
            for j in range(len(whole)):
                found[j] += _ONE if abs(row[j]) > factor * abs(whole[j] - row[j]) else ZERO


@compiled()
def erase(deltas: Floats, weights: Floats, total: Floats, voters: Floats) -> None:
    """See `elementwise.erase`; fills `total` and `voters` (c,) from `deltas` (n, c)."""
    plus, minus = np.empty((2, TILE), np.float32), np.empty((2, TILE), np.float32)
    for start in range(0, len(total), TILE):
        summed, chosen = total[start : start + TILE], voters[start : start + TILE]
        width = len(summed)
        for j in range(width):
            summed[j] = plus[0, j] = plus[1, j] = minus[0, j] = minus[1, j] = ZERO
        for i in range(len(deltas)):
            row, weight = deltas[i, start : start + TILE], weights[i]
            for j in range(width):
                summed[j] += row[j]
                plus[0, j] += weight * row[j] if row[j] > 0 else ZERO
                plus[1, j] += weight if row[j] > 0 else ZERO
                minus[0, j] += weight * row[j] if row[j] < 0 else ZERO
                minus[1, j] += weight if row[j] < 0 else ZERO
        for j in range(width):
            up = summed[j] >= 0
            summed[j] = plus[0, j] if up else minus[0, j]
            chosen[j] = plus[1, j] if up else minus[1, j]


@compiled(reassociate=True)
def multiply(wide: Wide, width: int, out: Wide) -> None:
    """Add the inner products of the rows of (n, width) to the lower triangle of `out` (n, n)."""
    for i in range(len(wide)):
        row = wide[i, :width]
        for k in range(0, i + 1, 2):  # two at once: a row is loaded for both
            after = min(k + 1, i)
            one, other, first, second = wide[k, :width], wide[after, :width], 0.0, 0.0
            for j in range(width):
                first += row[j] * one[j]
                second += row[j] * other[j]
            out[i, k] += first
            if after > k:
                out[i, after] += second


@compiled(reassociate=True)
def count_signs(wide: Wide, width: int, out: Wide) -> None:
    """Add how many weights each two rows of (n, width) move, and to opposite sides, to `out` (4, n, n).

    In order: weights that oppose, weights that both move, and the sizes of both rows in each of them.
    """
    for i in range(len(wide)):
        for k in range(i):
            one, other = wide[i, :width], wide[k, :width]
            opposed = moved = opposed_size = moved_size = 0.0
            for j in range(width):
                sign = one[j] * other[j]  # of float32 numbers: never rounded to zero
                size = abs(one[j]) + abs(other[j])
                opposed += 1.0 if sign < 0 else 0.0
                moved += 1.0 if sign != 0 else 0.0
                opposed_size += size if sign < 0 else 0.0
                moved_size += size if sign != 0 else 0.0
            out[0, i, k] += opposed
            out[1, i, k] += moved
            out[2, i, k] += opposed_size
            out[3, i, k] += moved_size


@compiled(reassociate=True)
def count_signs_of_all(wide: Wide, width: int, out: Wide) -> None:
    """The same of all rows at once, to `out` (4,): weights that at least two move, and not one way."""
    plus, minus, size = np.zeros(width), np.zeros(width), np.zeros(width)
    for i in range(len(wide)):
        row = wide[i, :width]
        for j in range(width):
            plus[j] += 1.0 if row[j] > 0 else 0.0
            minus[j] += 1.0 if row[j] < 0 else 0.0
            size[j] += abs(row[j])
    opposed = moved = opposed_size = moved_size = 0.0
    for j in range(width):
        differ, several = plus[j] * minus[j] > 0, plus[j] + minus[j] > 1
        opposed += 1.0 if differ else 0.0
        moved += 1.0 if several else 0.0
        opposed_size += size[j] if differ else 0.0
        moved_size += size[j] if several else 0.0
    out[0] += opposed
    out[1] += moved
    out[2] += opposed_size
    out[3] += moved_size


@compiled()
def add_inner_products(deltas: Floats, origin: Floats, block: int, out: Wide) -> None:
    """See `elementwise.add_inner_products`; block by block, in their order."""
    wide = np.empty((len(deltas), block))
    for start in range(0, deltas.shape[1], block):
        width = min(block, deltas.shape[1] - start)
        for i in range(len(deltas)):
            for j in range(width):
                wide[i, j] = np.float64(origin[start + j]) + deltas[i, start + j]
        multiply(wide, width, out)


@compiled()
def compare(deltas: Floats, block: int, products: Wide, signs: Wide, signs_of_all: Wide) -> None:
    """Add what the rows of (n, c) have in common, in float64, block by block; see `comparing.Sums`.

    With `signs` of shape (0, n, n), signs are not looked at.
    """
    wide = np.empty((len(deltas), block))
    for start in range(0, deltas.shape[1], block):
        width = min(block, deltas.shape[1] - start)
        for i in range(len(deltas)):
            for j in range(width):
                wide[i, j] = deltas[i, start + j]
        multiply(wide, width, products)
        if len(signs):
            count_signs(wide, width, signs)
            count_signs_of_all(wide, width, signs_of_all)
