"""Studies drawn by probit models, whose true differences are known."""

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr


class Study(NamedTuple):
    """Answers, 0 or 1, per benchmark: of the base, (items,), the experts and the merged models tried.

    `truth` are the true differences of all subsets to the base, `tried` says which were tried.
    """

    base: list[np.ndarray]
    experts: list[np.ndarray]
    merged: list[np.ndarray]
    truth: np.ndarray
    tried: np.ndarray

    @property
    def differences(self):
        """Of the merged models to the base, per benchmark, (tried, items)."""
        return [merged - base for merged, base in zip(self.merged, self.base, strict=True)]


def simulate_study(  # noqa: PLR0917
    generator, benchmarks, items, experts, n, tried, *, gain=0.05, expert=0.12, subset=0.05
):
    """Draw a study: items share their difficulty, subsets share experts."""
    members = np.array(list(combinations(range(experts), n)))
    chosen = generator.choice(len(members), min(tried, len(members)), replace=False)
    study = Study([], [], [], np.zeros(len(members)), chosen)
    common, rest = 0.89, math.sqrt(1 - 0.89**2)
    for k in range(benchmarks):
        level = -0.4 + 1.4 * k / max(benchmarks - 1, 1)
        skill = expert * math.sqrt(n) * generator.standard_normal(experts)
        own = subset * generator.standard_normal(len(members))
        merged = level + gain + skill[members].mean(1) + own
        study.truth[:] += (ndtr(merged) - ndtr(level)) / benchmarks
        difficulty = generator.standard_normal(items)
        noise = generator.standard_normal((experts, items))
        inherited = math.sqrt(0.4 / n) * noise[members[chosen]].sum(1)
        new = math.sqrt(0.6) * generator.standard_normal((len(chosen), items))
        shared = common * difficulty
        study.base.append((level + difficulty > 0) * 1.0)
        study.experts.append((level + skill[:, None] + shared + rest * noise > 0) * 1.0)
        answers = merged[chosen][:, None] + shared + rest * (inherited + new)
        study.merged.append((answers > 0) * 1.0)
    return study
