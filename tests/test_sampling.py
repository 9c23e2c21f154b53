"""Samples of items are fair, as large as asked for, and what they say of all items is true.

The simulations are sized so that chance alone fails one of them in thousands of runs; seeds are fixed.
"""

import csv
import math
from importlib import resources

import numpy as np
import pytest

from simulated_studies import simulate_study
from wildmerge.statistics.paired import difference
from wildmerge.statistics.sampling import (
    allocate,
    expected_stderr,
    first_items,
    item_order,
    regression_estimate,
)

SUBTASKS = np.repeat(np.arange(10), [160, 100, 60, 50, 40, 30, 25, 15, 10, 10])  # 500 items


def sixteen_benchmarks():
    """The paper's: items, and tokens an item by the prefix backend."""
    text = resources.files("wildmerge").joinpath("data/tokens.csv").read_text(encoding="utf-8")
    rows = [*csv.DictReader(text.splitlines())]
    items, tokens = (np.array([float(row[name]) for row in rows]) for name in ("items", "prefix"))
    return items, tokens / items


# --- which items ------------------------------------------------------------------------------------


def test_each_item_has_the_same_chance():
    generator = np.random.default_rng(10)
    drawn, draws = np.zeros(len(SUBTASKS)), 20_000
    for _ in range(draws):
        drawn[item_order(SUBTASKS, generator)[:50]] += 1
    for subtask in np.unique(SUBTASKS):
        chance = drawn[SUBTASKS == subtask].mean() / draws
        assert 0.98 <= chance / (50 / 500) <= 1.02


def test_a_larger_sample_keeps_the_smaller_one():
    small, large = (item_order(SUBTASKS, np.random.default_rng(11))[:n] for n in (50, 100))
    np.testing.assert_array_equal(small, large[:50])
    assert sorted(item_order(SUBTASKS, np.random.default_rng(11))) == [*range(500)]


@pytest.mark.parametrize("count", [10, 50, 137])
def test_subtasks_keep_their_shares(count):
    """To one item each, where chance alone scatters by 4 of 16 at n = 50."""
    sample = item_order(SUBTASKS, np.random.default_rng(12))[:count]
    found = np.bincount(SUBTASKS[sample], minlength=10)
    expected = np.bincount(SUBTASKS) * count / 500
    assert np.abs(found - expected).max() < 1.5


def test_questions_asked_twice_stay_together():
    """As HEAD-QA's, where the two subtasks are the two languages of the same questions."""
    questions, languages = np.tile(np.arange(100), 2), np.repeat([0, 1], 100)
    order = item_order(languages, np.random.default_rng(13), questions)
    assert sorted(order) == [*range(200)]
    for count, found in ((0, 0), (20, 20), (31, 32), (200, 200)):
        sample = first_items(order, count, questions)
        assert len(sample) == found
        assert set(np.bincount(questions[sample])) <= {0, 2}


def test_without_repeated_questions_clusters_change_nothing():
    one, other = (
        item_order(SUBTASKS, np.random.default_rng(14), c) for c in (None, np.arange(500))
    )
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(first_items(one, 7), first_items(one, 7, np.arange(500)))


# --- how many ---------------------------------------------------------------------------------------


def test_a_fifth_of_the_papers_tokens():
    items, tokens = sixteen_benchmarks()
    counts = allocate(items, tokens, budget=items @ tokens / 5)
    assert [*counts] == [
        *(2187, 1172, 1039, 1267, 1112, 1838, 500, 1221),
        *(1463, 3006, 813, 1318, 1727, 732, 1432, 938),
    ]
    assert expected_stderr(counts) == pytest.approx(0.00287, abs=5e-6)


def test_a_target_is_just_reached():
    items, tokens = sixteen_benchmarks()
    for target in (0.003, 0.005):
        counts = allocate(items, tokens, target=target)
        assert expected_stderr(counts) <= target < expected_stderr(counts - 10)
    share = allocate(items, tokens, target=0.005) @ tokens / (items @ tokens)
    assert share == pytest.approx(1 / 18, rel=0.02)


def test_the_allocation_is_the_cheapest_of_its_precision():
    """Against numbers of items in other proportions, scaled to the same standard error."""
    generator = np.random.default_rng(15)
    tokens = generator.uniform(20, 400, 6)
    ours = allocate(np.full(6, 10**6), tokens, target=0.005)
    for _ in range(100):
        others = generator.uniform(0.5, 2, 6) * ours
        others *= (expected_stderr(others) / expected_stderr(ours)) ** 2
        assert others @ tokens > ours @ tokens * 0.9999


def test_more_than_there_is_means_all_items_and_less_than_the_fewest_means_those():
    items, tokens = np.array([30, 400, 1000]), np.array([10.0, 20.0, 30.0])
    assert [*allocate(items, tokens, target=1e-6)] == [30, 400, 1000]
    assert [*allocate(items, tokens, budget=1e9)] == [30, 400, 1000]
    assert [*allocate(items, tokens, budget=1)] == [30, 50, 50]
    with pytest.raises(ValueError, match="either a budget"):
        allocate(items, tokens)


# --- what the sample says of all --------------------------------------------------------------------


def features(study):
    return [np.stack([b, e.mean(0)]) for b, e in zip(study.base, study.experts, strict=True)]


def test_help_of_the_experts_narrows_the_interval_and_it_covers():
    generator = np.random.default_rng(16)
    studies, covered, covered_all, errors, plain_errors = 2000, 0, 0, [], []
    for _ in range(studies):
        study = simulate_study(generator, 5, 160, 4, 4, 1, expert=0.1, subset=0)
        answers = [d[0] for d in study.differences]
        samples = [generator.permutation(160)[:40] for _ in answers]
        sampled = [d[s] for d, s in zip(answers, samples, strict=True)]
        found = regression_estimate(sampled, features(study), samples)
        everything = difference(answers).value
        low, high = found.other_items.interval()
        covered += low <= study.truth[0] <= high
        low, high = found.all_items.interval()
        covered_all += low <= everything <= high
        errors.append(found.all_items.value - everything)
        plain_errors.append(difference(sampled).value - everything)
    assert 0.93 <= covered / studies <= 0.98
    assert 0.93 <= covered_all / studies <= 0.985
    assert np.var(plain_errors) / np.var(errors) > 1.3


def test_a_sample_of_all_items_is_the_plain_difference():
    generator = np.random.default_rng(17)
    study = simulate_study(generator, 3, 100, 6, 4, 1)
    answers = [d[0] for d in study.differences]
    order = [generator.permutation(100) for _ in answers]
    questions = [np.repeat(np.arange(50), 2), None, np.arange(100) // 4]
    for clusters in (None, questions):
        found = regression_estimate(
            [d[s] for d, s in zip(answers, order, strict=True)], features(study), order, clusters
        )
        expected = difference(answers, clusters)
        for name in ("value", "items", "df"):
            ours = getattr(found.other_items, name)
            assert ours == pytest.approx(getattr(expected, name), rel=1e-12, abs=1e-12)
        assert found.all_items.stderr == pytest.approx(0, abs=1e-12)


def test_the_slopes_are_those_of_least_squares_within_benchmarks():
    import statsmodels.api as sm

    generator = np.random.default_rng(18)
    study = simulate_study(generator, 2, 200, 4, 2, 1)
    samples = [generator.permutation(200)[:n] for n in (60, 90)]
    sampled = [d[0][s] for d, s in zip(study.differences, samples, strict=True)]
    known = features(study)
    found = regression_estimate(sampled, known, samples)
    x = np.concatenate([k[:, s].T for k, s in zip(known, samples, strict=True)])
    benchmark = np.repeat([0, 1], [60, 90])
    design = np.column_stack([x, benchmark == 0, benchmark == 1])
    model = sm.OLS(np.concatenate(sampled), design.astype(float)).fit()
    means = [model.predict([*k.mean(1), i == 0, i == 1])[0] for i, k in enumerate(known)]
    assert found.all_items.value == pytest.approx(np.mean(means), abs=1e-6)


def test_few_items_or_equal_features_are_estimated_without_help():
    generator = np.random.default_rng(19)
    study = simulate_study(generator, 2, 100, 4, 2, 1)
    answers = [d[0] for d in study.differences]
    for count, known in ((20, features(study)), (60, [np.ones((2, 100))] * 2)):
        samples = [generator.permutation(100)[:count] for _ in answers]
        sampled = [d[s] for d, s in zip(answers, samples, strict=True)]
        found, plain = regression_estimate(sampled, known, samples), difference(sampled)
        assert found.all_items.value == pytest.approx(plain.value, abs=1e-12)
        shrunk = plain.items * (1 - count / 100)  # finite population
        assert found.all_items.items == pytest.approx(shrunk, rel=1e-12)
        assert found.other_items.items > shrunk and not math.isnan(found.other_items.df)
