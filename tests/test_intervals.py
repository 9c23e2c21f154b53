"""Intervals hold what they promise: against statsmodels, and by simulated studies whose truth is known.

The simulations are sized so that chance alone fails one of them in thousands of runs; seeds are fixed.
"""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest

from simulated_studies import simulate_study
from wildmerge.statistics.best import against_best
from wildmerge.statistics.families import benjamini_hochberg, holm
from wildmerge.statistics.paired import difference, item_variance
from wildmerge.statistics.rows import Row, to_table
from wildmerge.statistics.subsets import of_tried, share_above, subset_mean

STUDIES = 2000


def signed_answers(generator, n, discordance, gains):
    """Draw differences of n items: +1 for a gain, -1 for a loss, 0 else."""
    x = generator.random(n)
    gained, lost = x < discordance * gains, x > 1 - discordance * (1 - gains)
    return gained.astype(float) - lost


# --- one model against a reference -----------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes, discordance, gains",
    [
        ([160] * 7, 0.10, 0.8),
        ([40] * 16, 0.05, 0.8),
        ([40, 80, 160, 300, 1000, 3000], 0.05, 0.8),
        ([40, 40], 0.10, 1.0),
    ],
)
def test_the_paired_interval_covers_the_true_difference(sizes, discordance, gains):
    generator = np.random.default_rng(1)
    rates = discordance * np.linspace(0.4, 1.6, len(sizes))
    truth = float(np.mean(rates * (2 * gains - 1)))
    covered = 0
    for _ in range(STUDIES):
        answers = [
            signed_answers(generator, n, d, gains) for n, d in zip(sizes, rates, strict=True)
        ]
        low, high = difference(answers).interval()
        covered += low <= truth <= high
    assert 0.935 <= covered / STUDIES <= 0.985


def test_a_detectable_difference_is_seen_in_four_of_five_studies():
    """True is what 7 x 160 items of which 10 % differ are said to show before anything ran."""
    generator = np.random.default_rng(20)
    truth = 2.80 * math.sqrt(0.10 * 7 / 160) / 7
    gains = (1 + truth / 0.10) / 2
    rates = 0.10 * np.linspace(0.4, 1.6, 7)
    studies = [
        difference([signed_answers(generator, 160, rate, gains) for rate in rates])
        for _ in range(STUDIES)
    ]
    table = to_table([Row({"what": "model"}, found) for found in studies])
    assert 0.76 <= (table["verdict"] == "gain").mean() <= 0.86
    assert table["detectable_points"].median() == pytest.approx(100 * truth, rel=0.04)
    assert 100 * truth == pytest.approx(2.65, abs=0.005)


def test_without_any_difference_the_interval_has_a_width():
    found = difference([np.zeros(40), np.zeros(40)])
    assert found.value == 0 and found.p_value() == 1
    assert found.half_width() == pytest.approx(0.03519, abs=5e-6)


def test_a_single_item_is_no_division_by_zero():
    found = difference([np.array([1.0])])
    assert found.interval() == (-1, 1) and found.df == 1


def test_clusters_have_statsmodels_variance():
    import statsmodels.api as sm

    generator = np.random.default_rng(2)
    values = generator.standard_normal(300)
    clusters = generator.integers(0, 70, 300)
    model = sm.OLS(values, np.ones(300))
    oracle = model.fit(
        cov_type="cluster", cov_kwds={"groups": clusters, "use_correction": False}
    ).cov_params()[0, 0]
    count = len(np.unique(clusters))
    ours, df = item_variance(values, 10**12, clusters)
    assert ours == pytest.approx(oracle * count / (count - 1), rel=1e-9)
    assert df == count - 1


def test_questions_asked_twice_need_clusters():
    generator = np.random.default_rng(3)
    clusters = np.repeat(np.arange(250), 2)
    covered = {"clustered": 0, "as if independent": 0}
    for _ in range(STUDIES):
        common = np.repeat(generator.random(250), 2)
        own = generator.random(500)
        x = np.where(np.repeat(generator.random(250) < 0.6, 2), common, own)
        answers = (x < 0.07).astype(float) - (x > 0.97)
        for name, groups in (("clustered", [clusters]), ("as if independent", None)):
            low, high = difference([answers], groups).interval()
            covered[name] += low <= 0.04 <= high
    assert 0.935 <= covered["clustered"] / STUDIES <= 0.98
    assert covered["as if independent"] / STUDIES < 0.94


# --- subsets ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "tried, low, high", [(3, 0.94, 0.995), (5, 0.94, 0.995), (15, 0.93, 0.975)]
)
def test_the_interval_over_subsets_covers_the_mean_of_all(tried, low, high):
    generator = np.random.default_rng(4)
    all_subsets = those_tried = share = wilson = 0
    for _ in range(STUDIES):
        study = simulate_study(generator, 3, 150, 6, 4, tried)
        answers, truth, chosen = study.differences, study.truth, study.tried
        found = subset_mean(answers, 15)
        a, b = found.interval()
        all_subsets += a <= truth.mean() <= b
        a, b = of_tried(found).interval()
        those_tried += a <= truth[chosen].mean() <= b
        draws = share_above(answers, 15, generator)
        a, b = np.quantile(draws, [0.025, 0.975], method="inverted_cdf")
        share += a <= (truth > 0).mean() <= b
        count = sum(np.mean([d.mean(1) for d in answers], axis=0) > 0)
        counted = binomtest(int(count), tried).proportion_ci(method="wilson")
        wilson += counted.low <= (truth > 0).mean() <= counted.high
    assert low <= all_subsets / STUDIES <= high
    assert 0.935 <= those_tried / STUDIES <= 0.98
    assert 0.94 <= share / STUDIES
    assert wilson / STUDIES < 0.93  # what it is not good for


def test_a_p_value_is_the_level_at_which_the_interval_ends_at_zero():
    generator = np.random.default_rng(5)
    for tried in (2, 3, 5, 15):
        answers = simulate_study(generator, 2, 80, 6, 4, tried).differences
        found = subset_mean(answers, 15)
        p = found.p_value()
        assert found.half_width(1 - p) == pytest.approx(abs(found.value), abs=1e-6)


def test_all_subsets_tried_leave_the_items_alone():
    answers = simulate_study(np.random.default_rng(6), 2, 80, 6, 4, 15).differences
    found = subset_mean(answers, 15)
    assert found.subsets == 0 and found.stderr == math.sqrt(found.items)


def test_one_subset_of_many_says_nothing_of_the_others():
    answers = simulate_study(np.random.default_rng(7), 2, 80, 6, 4, 1).differences
    assert math.isnan(subset_mean(answers, 15).subsets)
    assert subset_mean(answers, 1).subsets == 0


# --- families ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 17, 48])
def test_adjusted_p_values_are_statsmodels(count):
    from statsmodels.stats.multitest import multipletests

    p = np.round(np.random.default_rng(count).random(count) ** 3, 2)  # with ties
    for ours, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        np.testing.assert_allclose(ours(p), multipletests(p, method=method)[1], atol=1e-12)


def test_equal_methods_are_seldom_told_apart():
    generator = np.random.default_rng(8)
    false, studies = 0, 1000
    for _ in range(studies):
        shared = generator.random(200)
        answers = [
            (np.where(generator.random(200) < 0.8, shared, generator.random(200)) < 0.6) * 1.0
            for _ in range(6)
        ]
        pairs = [difference([a - b]).p_value() for a, b in combinations(answers, 2)]
        false += (holm(pairs) < 0.05).any()
    assert false / studies < 0.075


# --- the best of several ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("items, naive_bias", [(40, -0.015), (160, -0.006)])
def test_the_best_expert_is_compared_without_the_winners_curse(items, naive_bias):
    generator = np.random.default_rng(9)
    studies, experts, naive, corrected, covered = 1000, 12, [], [], 0
    own, common = 0.31, 0.95
    scale = math.hypot(common, own)
    for _ in range(studies):
        skill = 0.02 * generator.standard_normal(experts)
        candidates, model, truth, merged_truth = [], [], np.zeros(experts), 0.0
        for k in range(4):
            level = 0.1 * k + skill + 0.05 * generator.standard_normal(experts)
            item = common * generator.standard_normal(items)
            noise = own * generator.standard_normal((experts, items))
            candidates.append((level[:, None] + item + noise > 0) * 1.0)
            model.append((0.1 * k + 0.03 + item + own * generator.standard_normal(items) > 0) * 1.0)
            truth += ndtr(level / scale) / 4
            merged_truth += ndtr((0.1 * k + 0.03) / scale) / 4
        scores = np.mean([c.mean(1) for c in candidates], axis=0)
        chosen = int(scores.argmax())
        target = merged_truth - truth[chosen]
        naive.append(np.mean([m.mean() for m in model]) - scores[chosen] - target)
        found = against_best(candidates, model, generator)
        corrected.append(found.value - target)
        low, high = found.interval()
        covered += low <= target <= high
    assert np.mean(naive) < naive_bias
    assert abs(np.mean(corrected)) < 0.006
    assert 0.93 <= covered / studies <= 1
