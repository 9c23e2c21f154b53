"""What scoring a model twice changes: an exact share, and a floor that chance exceeds one time in 20."""

import csv
import math
from importlib import resources

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from wildmerge.reporting.pairs import rescored as sentence
from wildmerge.statistics.of_pairs import compare_pairs
from wildmerge.statistics.rescoring import rescored


def flipped(sizes, differing):
    """Differences of benchmarks of these sizes, the first of their items lost and gained in turn."""
    found = [np.zeros(n) for n in sizes]
    every = np.concatenate(found)
    every[:differing] = np.resize([1.0, -1.0], differing)
    return np.split(every, np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("items, differing", [(455, 10), (455, 0), (7, 7)])
def test_the_share_of_items_has_the_exact_interval_of_statsmodels(items, differing):
    found = rescored(flipped([items], differing))
    low, high = proportion_confint(differing, items, method="beta")
    assert found.low == pytest.approx(low if differing else 0, abs=1e-9)
    assert found.high == pytest.approx(high if differing < items else 1, abs=1e-9)


def test_the_floor_of_the_papers_sixteen_benchmarks():
    """2.2 % of all items, as 10 of 455: 0.17 points there, 0.87 in seven benchmarks of 160 items."""
    text = resources.files("wildmerge").joinpath("data/tokens.csv").read_text(encoding="utf-8")
    sizes = [int(row["items"]) for row in csv.DictReader(text.splitlines())]
    for counts, points in ((sizes, 0.17), ([160] * 7, 0.87)):
        found = rescored(flipped(counts, round(sum(counts) * 10 / 455)))
        assert 100 * found.floor == pytest.approx(points, abs=0.006)


def test_chance_exceeds_the_floor_in_one_of_twenty_cases():
    generator = np.random.default_rng(21)
    sizes, studies = [100, 300, 1000], 2000
    beyond = 0
    for _ in range(studies):
        changes = [generator.choice([-1.0, 0.0, 1.0], size, p=[0.02, 0.96, 0.02]) for size in sizes]
        beyond += abs(np.mean([d.mean() for d in changes])) > rescored(changes).floor
    assert 0.03 <= beyond / studies <= 0.07


def test_answers_that_are_numbers_have_a_floor_and_no_share():
    changes = [np.full(50, 0.001), np.full(50, -0.002)]
    found = rescored(changes)
    assert (found.items, found.differing) == (0, 0) and math.isnan(found.share)
    mean_square = np.mean(np.concatenate(changes) ** 2)
    assert found.floor == pytest.approx(1.959964 * math.sqrt(mean_square * 2 / 50) / 2, rel=1e-6)


def compared(differing, of):
    """One model's answers scored twice, as the last row that `compare` prints."""
    right = np.resize([1.0, 0.0], of)
    again = right.copy()
    again[:differing] = 1 - right[:differing]
    scores = {"first": {"x": right}, "second": {"x": again}}
    return compare_pairs(scores, {"x": None}, {"second": "by hf"}).iloc[-1]


def test_the_sentence_says_what_rescoring_changes():
    assert sentence(compared(10, 455)) == (
        "Scored again by hf, the model answers 2.2 % of the items differently (10 of 455; "
        "net +0.0 points): differences under 1.4 points are within what rescoring changes"
    )
    assert sentence(compared(0, 455)) == (
        "Scored again by hf, the model answers no item differently "
        "(0 of 455; up to 0.8 % cannot be excluded)"
    )


def test_a_net_difference_beyond_noise_is_no_rounding():
    right = np.zeros(400)
    again = np.repeat([1.0, 0.0], [40, 360])
    scores = {"first": {"x": right}, "second": {"x": again}}
    row = compare_pairs(scores, {"x": None}, {"second": "by hf"}).iloc[-1]
    assert sentence(row).endswith("is beyond noise, so more than rounding has changed")
