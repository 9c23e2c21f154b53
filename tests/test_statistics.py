"""The statistics agree with other ways to compute them, and stay right at their edges."""

import math
import random

import numpy as np
import pandas as pd
import pytest

from wildmerge.statistics import comparisons, estimates


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
    assert list(comparisons.above([reordered + 1e-16, same], same)) == [False, False]
    assert list(comparisons.above([0.5, 0.6, 0.7], [0.4, 0.6, 0.8])) == [True, False, False]


def test_a_difference_is_in_percentage_points():
    assert comparisons.mean_difference_points([0.51, 0.53], 0.50) == pytest.approx(2.0)


@pytest.mark.parametrize("successes, trials", [(0, 1), (2, 15), (15, 15), (7, 10)])
def test_wilson_ends_are_where_the_score_test_is_exactly_rejected(successes, trials):
    share = successes / trials
    for end in estimates.wilson_interval(successes, trials):
        if 0 < end < 1:
            score = abs(share - end) / math.sqrt(end * (1 - end) / trials)
            assert score == pytest.approx(comparisons.half_width(1.0))
        else:
            assert end == share  # the interval touches 0 or 1 only where the share does


def test_impossible_counts_are_refused():
    for successes, trials in ((1, 0), (3, 2), (-1, 4), (0, 0)):
        with pytest.raises(ValueError):
            estimates.wilson_interval(successes, trials)


def test_the_standard_error_of_a_mean_matches_a_simulation():
    draw = np.random.default_rng(0)
    errors = [0.01, 0.03, 0.02]
    means = draw.normal(0, errors, size=(200_000, 3)).mean(axis=1)
    assert estimates.stderr_of_mean(errors) == pytest.approx(means.std(), rel=0.02)


def test_an_unknown_error_adds_nothing():
    assert estimates.combined_stderr(3.0, math.nan, 4.0) == pytest.approx(5.0)
    assert comparisons.stderr_over_subsets(0.02, [0.5]) == pytest.approx(0.02)


def test_the_error_of_a_difference_is_that_of_the_items_differences():
    draw = np.random.default_rng(1)
    reference, models = draw.integers(0, 2, 50), draw.integers(0, 2, (3, 50))
    differences = [sum(model[i] for model in models) / 3 - reference[i] for i in range(50)]
    expected = pd.Series(differences).sem()
    assert estimates.paired_stderr(models, reference) == pytest.approx(expected)


def test_the_error_of_a_single_item_is_unknown_and_stays_so():
    assert math.isnan(estimates.paired_stderr([[1], [0]], [0]))
    assert math.isnan(comparisons.stderr_over_subsets(math.nan, [0.5, 0.6]))


def test_the_share_above_is_in_per_cent_with_its_interval_and_unknown_of_nothing():
    low, high = estimates.wilson_interval(2, 3)
    assert comparisons.share_above(2, 3) == pytest.approx((200 / 3, 100 * low, 100 * high))
    assert all(math.isnan(number) for number in comparisons.share_above(0, 0))


def test_the_error_of_an_average_over_bases_is_never_too_small():
    """Of two bases whose errors go together fully, as of two that are independent."""
    draw = np.random.default_rng(2).normal(size=(2, 100_000))
    for second in (draw[0], draw[1]):
        spread = np.std((3.0 * draw[0] + 1.0 * second) / 2)
        assert comparisons.average_over_bases([1.0, 5.0], [3.0, 1.0])[1] >= spread * 0.99
    assert comparisons.average_over_bases([1.0, 5.0], [3.0, 1.0])[0] == 3.0


def test_noise_is_judged_at_the_95_per_cent_level():
    found = comparisons.verdicts([-1.95, -1.97, 1.97, 5.0, 0.0], [1.0, 1.0, 1.0, math.nan, 0.0])
    assert list(found) == ["noise", "loss", "gain", "noise", "noise"]


def test_rank_correlation_is_that_of_the_mean_ranks():
    first, second = [1.0, 2.0, 2.0, 5.0, 9.0, 9.0], [3.0, 3.0, 1.0, 0.0, -2.0, 8.0]
    expected = np.corrcoef(pd.Series(first).rank(), pd.Series(second).rank())[0, 1]
    assert estimates.rank_correlation(first, second) == pytest.approx(expected)
    assert math.isnan(estimates.rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]))
    with pytest.raises(ValueError, match="paired"):
        estimates.rank_correlation([1.0], [1.0, 2.0])
