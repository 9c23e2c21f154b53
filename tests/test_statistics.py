"""The statistics agree with other ways to compute them, and keep their edges honest."""

import math
import random
import statistics as standard

import numpy as np
import pandas as pd
import pytest

from wildmerge.statistics import estimates as statistics


@pytest.fixture
def numbers() -> list[float]:
    draw = random.Random(7)
    return [draw.gauss(0.5, 0.1) for _ in range(15)]


def test_the_mean_does_not_depend_on_order(numbers):
    shuffled = random.Random(1).sample(numbers, len(numbers))
    assert statistics.mean(numbers) == statistics.mean(shuffled)
    assert statistics.mean(numbers) == pytest.approx(np.mean(numbers), rel=1e-14)


def test_the_spread_is_the_sample_standard_deviation(numbers):
    assert statistics.sample_deviation(numbers) == pytest.approx(standard.stdev(numbers))
    assert math.isnan(statistics.sample_deviation([0.5]))


def test_equal_accuracy_is_not_above_even_when_summed_in_another_order():
    scores = [0.1, 0.2, 0.3, 0.7]
    same, reordered = sum(scores) / 4, sum(reversed(scores)) / 4
    assert statistics.share_above([reordered + 1e-16, same], same) == 0.0
    assert statistics.share_above([0.5, 0.6, 0.7, 0.7], 0.6) == 0.5


def test_a_difference_is_in_percentage_points():
    assert statistics.mean_difference_points([0.51, 0.53], 0.50) == pytest.approx(2.0)


@pytest.mark.parametrize("successes, trials", [(0, 1), (2, 15), (15, 15), (7, 10)])
def test_wilson_ends_are_where_the_score_test_is_exactly_rejected(successes, trials):
    share = successes / trials
    for end in statistics.wilson_interval(successes, trials):
        if 0 < end < 1:
            score = abs(share - end) / math.sqrt(end * (1 - end) / trials)
            assert score == pytest.approx(statistics.Z_95)
        else:
            assert end == share  # the interval touches 0 or 1 only where the share does


def test_impossible_counts_are_refused():
    for successes, trials in ((1, 0), (3, 2), (-1, 4)):
        with pytest.raises(ValueError, match="impossible"):
            statistics.wilson_interval(successes, trials)


def test_the_standard_error_of_a_mean_matches_a_simulation():
    draw = np.random.default_rng(0)
    errors = [0.01, 0.03, 0.02]
    means = draw.normal(0, errors, size=(200_000, 3)).mean(axis=1)
    assert statistics.stderr_of_mean(errors) == pytest.approx(means.std(), rel=0.02)


def test_an_unknown_error_adds_nothing():
    assert statistics.combined_stderr(3.0, math.nan, 4.0) == pytest.approx(5.0)


def test_noise_is_judged_at_the_95_per_cent_level():
    assert statistics.within_noise(-1.95, 1.0)
    assert not statistics.within_noise(-1.97, 1.0)


def test_rank_correlation_agrees_with_pandas_on_ties():
    first, second = [1.0, 2.0, 2.0, 5.0, 9.0, 9.0], [3.0, 3.0, 1.0, 0.0, -2.0, 8.0]
    expected = pd.Series(first).corr(pd.Series(second), method="spearman")
    assert statistics.rank_correlation(first, second) == pytest.approx(expected)
    assert math.isnan(statistics.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="paired"):
        statistics.rank_correlation([1.0], [1.0, 2.0])
