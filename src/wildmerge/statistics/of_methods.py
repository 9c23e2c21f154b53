"""Variants of one base and size against each other, the best of them, and the step to more experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from wildmerge.statistics.best import against_best
from wildmerge.statistics.of_sizes import HALVES, TRIED, SizeAnswers, generator, over
from wildmerge.statistics.paired import Estimate, Floats, difference
from wildmerge.statistics.rows import Row
from wildmerge.statistics.subsets import from_means, printed

PAIR, STEP, CHOICE = "pair", "step", "choice"


def compare_methods(
    sizes: Sequence[SizeAnswers], choices: Mapping[str, Sequence[str]]
) -> Iterator[Row]:
    """Yield the comparisons of a base's variants with each other.

    Args:
        sizes: of one base.
        choices: what one may choose between: variants by the name of the choice.
    """
    merged = [size for size in sizes if size.size.n > 1 and size.answers.base is not None]
    for n in sorted({size.size.n for size in merged}):
        of_size = [size for size in merged if size.size.n == n]
        for one, other in combinations(of_size, 2):
            yield from _pair(one, other)
        for name, variants in choices.items():
            chosen = [size for size in of_size if size.size.variant in variants]
            if len(chosen) > 1:
                yield from _best_of(chosen, name)
    for variant in dict.fromkeys(size.size.variant for size in merged):
        yield from _step([size for size in merged if size.size.variant == variant])


def _pair(one: SizeAnswers, other: SizeAnswers) -> Iterator[Row]:
    """Two variants on the same subsets."""
    shared = [name for name in one.subsets if name in set(other.subsets)]
    if not shared:
        return
    one, other = (_restricted(size, shared) for size in (one, other))
    items = [a - b for a, b in zip(one.values, other.values, strict=True)]
    found = from_means(items, one.accuracy - other.accuracy, one.size.all, one.answers.groups)
    keys = one.keys("variant", other.size.variant)
    extra = over(found, one.size.all) | one.counts() | {"items": sum(map(len, items))}
    family = f"variants of {keys['base']}, n = {one.size.n}"
    yield Row(keys | {"what": PAIR}, printed(found, one.size.all), family, holm=True, extra=extra)


def _restricted(size: SizeAnswers, subsets: Sequence[str]) -> SizeAnswers:
    """Return a variant's models of these subsets alone, in this order."""
    row_of = dict(zip(size.subsets, size.size.rows, strict=True))
    rows = np.array([row_of[name] for name in subsets])
    if np.array_equal(rows, size.size.rows):
        return size
    return SizeAnswers(size.answers, size.size._replace(rows=rows))


def _best_of(sizes: Sequence[SizeAnswers], name: str) -> Iterator[Row]:
    """The variant that one would choose, against the base, with the luck of choosing it removed."""
    answers = sizes[0].answers
    assert answers.base is not None
    base = [values[answers.base].astype(np.float64) for values in answers.values.values()]
    if min(map(len, base)) < 2:
        return
    candidates = [np.stack(of_label) for of_label in zip(*(s.values for s in sizes), strict=True)]
    keys = sizes[0].keys("base", str(answers.models["base"][answers.base]))
    keys |= {"what": CHOICE, "method": name, "variant": name}
    draws = generator("choice", name, *map(str, keys.values()))
    found = against_best(candidates, base, draws, answers.groups)
    counts = [size.counts() for size in sizes]
    yield Row(
        keys,
        replace(found, value=-found.value),
        extra={key: min(c[key] for c in counts) for key in counts[0]}
        | {"over": TRIED, "estimator": HALVES, "items": sum(map(len, base))},
    )


def _step(sizes: Sequence[SizeAnswers]) -> Iterator[Row]:
    """What each further expert adds between the two largest sizes of a variant."""
    if len(sizes) < 2:
        return
    smaller, larger = sorted(sizes, key=lambda size: size.size.n)[-2:]
    items = [b - a for a, b in zip(smaller.values, larger.values, strict=True)]
    added = larger.size.n - smaller.size.n
    found = _scaled(_joined(smaller, larger, items), 1 / added)
    keys = larger.keys("size", f"n = {smaller.size.n}") | {"what": STEP}
    counts = {key: min(s.counts()[key] for s in (smaller, larger)) for key in larger.counts()}
    extra = counts | over(found, counts["subsets"]) | {"items": sum(map(len, items))}
    yield Row(keys, found, f"steps of {keys['base']}", extra=extra)


def _joined(smaller: SizeAnswers, larger: SizeAnswers, items: Sequence[Floats]) -> Estimate:
    """Estimate the difference of two sizes: items are paired, draws of subsets are independent."""
    parts = []
    for size in (smaller, larger):
        found = from_means(size.values, size.accuracy, size.size.all, size.answers.groups)
        parts.append(printed(found, size.size.all))
    joined = difference(items, larger.answers.groups)
    drawn = [part.tried for part in parts if part.subsets > 0]
    return replace(joined, subsets=sum(part.subsets for part in parts), tried=min(drawn, default=1))


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    """Return the estimate of a multiple."""
    return replace(
        estimate,
        value=estimate.value * factor,
        items=estimate.items * factor**2,
        subsets=estimate.subsets * factor**2,
    )
