"""A variant at one size, over its subsets: against the base and the best expert, and the share above."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from wildmerge.statistics.answers import BaseAnswers, Size
from wildmerge.statistics.best import against_best
from wildmerge.statistics.estimates import above
from wildmerge.statistics.paired import Estimate, Floats, difference
from wildmerge.statistics.rows import Row
from wildmerge.statistics.subsets import enough, from_means, of_other_experts, of_tried, printed
from wildmerge.statistics.subsets import share_above as draw_shares

SIZE, AVERAGE = "size", "average"
ALL, TRIED = "all subsets", "tried subsets"
NAIVE, HALVES = "paired", "split halves"


@dataclass(frozen=True)
class SizeAnswers:
    """The models of one variant and size beside their base.

    Attributes:
        answers: of all of the base's models.
        size: which of them.
    """

    answers: BaseAnswers
    size: Size

    @cached_property
    def values(self) -> list[Floats]:
        """Per benchmark, each item's mean value over the subsets tried, (items,)."""
        return [values[self.size.rows].mean(0) for values in self.answers.values.values()]

    @cached_property
    def accuracy(self) -> Floats:
        """The accuracy of each subset's model, (tried,)."""
        return self.answers.accuracy[self.size.rows]

    @property
    def subsets(self) -> list[str]:
        """The experts of each model, (tried,)."""
        return [str(name) for name in self.answers.models["experts"][self.size.rows]]

    def against(self, reference: int) -> tuple[list[Floats], Floats]:
        """Return mean differences to a model: of each item over subsets, of each subset over items."""
        theirs = self.answers.values.values()
        items = [own - them[reference] for own, them in zip(self.values, theirs, strict=True)]
        return items, self.accuracy - self.answers.accuracy[reference]

    def keys(self, reference: str, name: str = "", label: str = "") -> dict[str, Any]:
        """Return what a comparison of this size is called."""
        return {
            **{"what": SIZE, "base": self.answers.models["base"].iat[0], "is_average": False},
            **{"method": self.size.method, "variant": self.size.variant, "n": self.size.n},
            **{"label": label, "reference": reference, "reference_name": name},
        }

    def counts(self) -> dict[str, int]:
        """Return how many subsets are there, planned, and possible."""
        size = self.size
        return {
            "subsets": len(size.rows),
            "subsets_planned": size.planned,
            "subsets_all": size.all,
        }


def compare_sizes(sizes: Sequence[SizeAnswers]) -> Iterator[Row]:
    """Yield the comparisons of a base's variants at each size: with the base and the best expert."""
    for size in sizes:
        answers = size.answers
        if answers.base is None:
            return
        yield with_base(size, answers.base)
        yield from _on_benchmarks(size, answers.base)
        if answers.best_expert is not None:
            yield from _with_best_expert(size, answers.best_expert)


def with_base(size: SizeAnswers, base: int) -> Row:
    """Return the mean difference to the base over all benchmarks, and the share of subsets above it."""
    items, means = size.against(base)
    groups, every = size.answers.groups, size.size.all
    found = from_means(items, means, every, groups)
    merged = size.size.n > 1
    extra = over(found, every) | size.counts() | {"items": sum(map(len, items))}
    extra |= _share(size, base, items, means)
    if merged:
        differences = size.answers.differences(size.size.rows, base)
        half = of_other_experts(
            found,
            differences,
            subsets=every,
            n=size.size.n,
            experts=int((size.answers.models["kind"] == "expert").sum()),
        )
        extra |= ends(found.value, half, "other")
    family = "sizes against their base" if merged else "experts' mean against their base"
    keys = size.keys("base", str(size.answers.models["base"][base]))
    return Row(keys, printed(found, every), family, extra=extra)


def _share(
    size: SizeAnswers, base: int, items: Sequence[Floats], means: Floats
) -> dict[str, float]:
    """Return how many subsets are above the base, and the 95 % interval of the share of all."""
    count, every = int(above(means, 0.0).sum()), size.size.all
    share = {"subsets_above": count, "share_above_pct": 100 * count / len(means)}
    if len(means) == 1:
        return share
    differences = size.answers.differences(size.size.rows, base)
    name = ("share", *map(str, size.keys("base").values()))
    draws = draw_shares(differences, every, generator(*name), size.answers.groups)
    low, high = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
    return share | {"share_low_pct": 100 * float(low), "share_high_pct": 100 * float(high)}


def _on_benchmarks(size: SizeAnswers, base: int) -> Iterator[Row]:
    """The mean difference to the base on each benchmark; together they are a family."""
    answers, every = size.answers, size.size.all
    name = str(answers.models["base"][base])
    for label, own in zip(answers.labels, size.values, strict=True):
        values = answers.values[label]
        means = values[size.size.rows].mean(1) - values[base].mean()
        found = from_means([own - values[base]], means, every, [answers.clusters[label]])
        extra = over(found, every) | size.counts() | {"items": len(own)}
        family = f"benchmarks of {name}, {size.size.variant}, n = {size.size.n}"
        yield Row(size.keys("base", name, label), printed(found, every), family, extra=extra)


def _with_best_expert(size: SizeAnswers, best: int) -> Iterator[Row]:
    """Against the expert with the best score, as it is, and with the luck of choosing it removed."""
    answers, every = size.answers, size.size.all
    name = str(answers.models["experts"][best])
    items, means = size.against(best)
    found = from_means(items, means, every, answers.groups)
    extra = over(found, every) | size.counts() | {"items": sum(map(len, items))}
    count = int(above(means, 0.0).sum())
    extra |= {"subsets_above": count, "share_above_pct": 100 * count / len(means)}
    keys = size.keys("best_expert", name)
    yield Row(keys, printed(found, every), extra=extra | {"estimator": NAIVE})
    if size.size.n == 1 or len(answers.experts) == 1 or min(map(len, items)) < 2:
        return
    candidates = [values[answers.experts].astype(np.float64) for values in answers.values.values()]
    name_of_draws = ("best expert", *map(str, keys.values()))
    corrected = against_best(candidates, size.values, generator(*name_of_draws), answers.groups)
    yield Row(
        keys,
        corrected,
        "sizes against their best expert",
        extra=size.counts() | {"over": TRIED, "estimator": HALVES, "items": extra["items"]},
    )


def average_over_bases(sizes: Sequence[SizeAnswers]) -> Iterator[Row]:
    """Yield the mean over bases of each variant and size that all of them have.

    The bases answer the same items, so that differences are averaged item by item; their draws of
    subsets are independent.
    """
    bases = {str(size.answers.models["base"].iat[0]) for size in sizes}
    if len(bases) < 2:
        return
    alike: dict[tuple[str, int], list[SizeAnswers]] = {}
    for size in sizes:
        alike.setdefault((size.size.variant, size.size.n), []).append(size)
    for members in alike.values():
        if len(members) == len(bases) and all(m.answers.base is not None for m in members):
            yield _average(members, "base", [m.answers.base for m in members])
            best = [m.answers.best_expert for m in members]
            if None not in best:
                yield _average(members, "best_expert", best)


def _average(members: Sequence[SizeAnswers], reference: str, rows: Sequence[int | None]) -> Row:
    """The mean over bases of one variant and size against its references."""
    found, items = [], []
    for member, row in zip(members, rows, strict=True):
        assert row is not None
        of_base, means = member.against(row)
        found.append(from_means(of_base, means, member.size.all, member.answers.groups))
        items.append(of_base)
    count = len(members)
    mean = [np.mean(of_label, axis=0) for of_label in zip(*items, strict=True)]
    joined = difference(mean, members[0].answers.groups)
    everything = all(enough(len(m.size.rows), m.size.all) for m in members)
    drawn = sum(e.subsets for e in found) / count**2 if everything else 0.0
    joined = replace(joined, subsets=drawn, tried=min(e.tried for e in found))
    counts = [m.counts() for m in members]
    shares = [
        100 * float(above(m.against(int(row or 0))[1], 0.0).mean())
        for m, row in zip(members, rows, strict=True)
    ]
    return Row(
        members[0].keys(reference) | {"base": AVERAGE, "is_average": True},
        joined,
        "" if reference == "best_expert" else "means over bases",
        extra={key: min(c[key] for c in counts) for key in counts[0]}
        | {"over": ALL if everything else TRIED, "estimator": NAIVE}
        | {"items": sum(map(len, mean)), "share_above_pct": float(np.mean(shares))},
    )


def over(estimate: Estimate, every: int) -> dict[str, Any]:
    """Return the columns that say which subsets an interval is of, and both intervals in points."""
    columns: dict[str, Any] = {
        "over": ALL if enough(estimate.tried, every) else TRIED,
        "estimator": "subsets",
    }
    columns |= ends(estimate.value, of_tried(estimate).half_width(), "tried")
    return columns | ends(estimate.value, estimate.half_width(), "all")


def ends(value: float, half: float, name: str) -> dict[str, float]:
    """Return the columns of an interval in points, cut to the possible differences."""
    low, high = np.clip([value - half, value + half], -1, 1)
    return {f"{name}_low_points": 100 * low, f"{name}_high_points": 100 * high}


def generator(*names: str) -> np.random.Generator:
    """Return the random numbers of a comparison, which its name alone decides."""
    return np.random.default_rng(list(hashlib.sha256("\0".join(names).encode()).digest()))
