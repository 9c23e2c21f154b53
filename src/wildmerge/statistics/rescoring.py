"""One model scored twice, as by two backends or in two dtypes: what rounding alone changes.

f of all items are answered differently. Each of them is as likely to be gained as lost, so that the mean
over K benchmarks of n_k items moves by sqrt(f sum 1/n_k)/K: a floor under which no difference of two
models should be read. Intervals need no widening for it: these items count in them as any that differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from wildmerge.statistics.paired import LEVEL, Floats


@dataclass(frozen=True)
class Rescored:
    """What changed when a model was scored again.

    Attributes:
        items: of benchmarks whose answers are right or wrong.
        differing: those of them that are answered differently.
        low: lower end of the exact 95 % interval of their share; NaN without such items.
        high: its upper end.
        floor: difference in the mean over benchmarks, as a share, that rescoring exceeds in 5 % of
            cases.
    """

    items: int
    differing: int
    low: float
    high: float
    floor: float

    @property
    def share(self) -> float:
        """The share of items that are answered differently; NaN without such items."""
        return self.differing / self.items if self.items else math.nan


def rescored(differences: Sequence[Floats]) -> Rescored:
    """Return how many items a model answers differently when it is scored again, and the noise floor.

    The net difference is `paired.difference` of the same.

    Args:
        differences: per benchmark, of the items of one scoring to those of the other, (items,).

    Raises:
        ValueError: no benchmark, or one without items.

    Source: C. J. Clopper and E. S. Pearson, Biometrika 26 (1934), for the interval.
    """
    if not differences or any(not len(d) for d in differences):
        raise ValueError("rescoring needs benchmarks with items")
    counted = [d for d in differences if np.isin(d, (-1, 0, 1)).all()]
    items, differing = sum(map(len, counted)), sum(int(np.count_nonzero(d)) for d in counted)
    low = high = math.nan
    if items:
        exact = stats.binomtest(differing, items).proportion_ci(LEVEL, method="exact")
        low, high = float(exact.low), float(exact.high)
    everything = np.concatenate(differences)
    share = float(everything @ everything) / len(everything)  # of items, where all differ by 1
    deviation = math.sqrt(share * sum(1 / len(d) for d in differences)) / len(differences)
    floor = float(stats.norm.ppf((1 + LEVEL) / 2)) * deviation
    return Rescored(items, differing, low, high, floor)
