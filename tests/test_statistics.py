"""The statistics agree with other ways to compute them, and stay right at their edges."""

import math
import random

import numpy as np
import pandas as pd
import pytest

from wildmerge.statistics import estimates


@pytest.fixture
def numbers() -> list[float]:
    draw = random.Random(7)
    return [draw.gauss(0.5, 0.1) for _ in range(15)]


def test_the_spread_is_the_sample_standard_deviation(numbers):
    assert estimates.sample_deviation(numbers) == pytest.approx(np.std(numbers, ddof=1))
    assert math.isnan(estimates.sample_deviation([0.5]))
    assert estimates.sample_deviation([0.1, 0.1, 0.1]) == 0.0


def test_equal_accuracy_is_not_above_even_when_summed_in_another_order():
    scores = [0.1, 0.2, 0.3, 0.7]
    same, reordered = sum(scores) / 4, sum(reversed(scores)) / 4
    assert list(estimates.above([reordered + 1e-16, same], same)) == [False, False]
    assert list(estimates.above([0.5, 0.6, 0.7], [0.4, 0.6, 0.8])) == [True, False, False]


def test_the_standard_error_of_a_mean_matches_a_simulation():
    draw = np.random.default_rng(0)
    errors = [0.01, 0.03, 0.02]
    means = draw.normal(0, errors, size=(200_000, 3)).mean(axis=1)
    assert estimates.stderr_of_mean(errors) == pytest.approx(means.std(), rel=0.02)


def test_rank_correlation_is_that_of_the_mean_ranks():
    first, second = [1.0, 2.0, 2.0, 5.0, 9.0, 9.0], [3.0, 3.0, 1.0, 0.0, -2.0, 8.0]
    expected = np.corrcoef(pd.Series(first).rank(), pd.Series(second).rank())[0, 1]
    assert estimates.rank_correlation(first, second) == pytest.approx(expected)
    assert math.isnan(estimates.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="paired"):
        estimates.rank_correlation([1.0], [1.0, 2.0])
