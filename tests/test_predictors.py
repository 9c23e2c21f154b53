"""Predictors of the gain: against explicit refits, and in worlds where the truth is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from wildmerge.reporting.story.prediction import prediction_sentences
from wildmerge.reporting.tables.prediction import arrays_of, predictor_table, predictors_of
from wildmerge.statistics import predictors
from wildmerge.statistics.predictors import NOT_SHOWN, PREDICTS, Merges, judge, judge_one, unseen_r2


def world(rng, *, slope=0.0, experts=6, sizes=(2, 4), subsets=8, variants=3, said_by="experts"):
    """Merges whose gains depend on their experts, and a predictor that depends on them, too.

    Without a slope what it knows of the experts is unrelated to what makes them gain.
    """
    members = []
    for size in sizes:
        every = list(itertools.combinations(range(experts), size))
        for i in rng.permutation(len(every))[:subsets]:
            members.append(np.isin(np.arange(experts), every[i]))
    members = np.array(members)
    share = members / members.sum(1)[:, None]
    hidden, known = rng.standard_normal((2, experts))
    pairs = rng.standard_normal((experts, experts))
    said = {
        "experts": share @ known,
        "best": np.array([known[m].max() for m in members]),
        "pairs": np.array(
            [pairs[np.ix_(m, m)][np.triu_indices(m.sum(), 1)].mean() for m in members]
        ),
        "subsets": rng.standard_normal(len(members)),
    }[said_by]
    gain = 2 * share @ hidden + slope * said + 0.3 * rng.standard_normal(len(members))
    variant = np.repeat(np.arange(variants), len(members))
    subset = np.tile(np.arange(len(members)), variants)
    gains = gain[subset] + 5 * variant + 0.3 * rng.standard_normal(len(subset))
    return Merges(gains, variant, subset, members), said[subset] * 1.0


def by_refits(x, merges):
    """Fit a mean a cell and one slope by least squares, once for each subset that is left out."""
    dummies = np.eye(merges.cells.max() + 1)[merges.cells]
    predicted, mean = np.zeros_like(x), np.zeros_like(x)
    for subset in set(merges.subsets):
        out = merges.subsets == subset
        design = np.column_stack([dummies, x])
        for into, columns in ((predicted, design), (mean, dummies)):
            fitted = np.linalg.lstsq(columns[~out], merges.gains[~out], rcond=None)[0]
            into[out] = columns[out] @ fitted
    errors = [((merges.gains - line) ** 2).sum() for line in (predicted, mean)]
    return 1 - errors[0] / errors[1]


@pytest.mark.parametrize("seed", range(5))
def test_r2_is_that_of_refits_without_each_subset(seed):
    rng = np.random.default_rng(seed)
    merges, _ = world(rng, slope=1.0)
    there = rng.random(len(merges.gains)) < 0.9  # some merges are missing
    merges = merges.only(there)
    x = rng.standard_normal((4, len(merges.gains)))
    assert np.bincount(merges.cells).min() > 2
    assert unseen_r2(x, merges) == pytest.approx([by_refits(row, merges) for row in x], rel=1e-9)


def test_a_predictor_that_matters_is_found_with_its_sign(monkeypatch):
    monkeypatch.setattr(predictors, "PERMUTATIONS", 499)
    rng = np.random.default_rng(0)
    merges, x = world(rng, slope=6.0, subsets=15)
    table = judge({"b": (merges, {"good": x, "turned": -x, "noise": rng.standard_normal(len(x))})})
    table = table.set_index("predictor")
    assert list(table["verdict"]) == [PREDICTS, PREDICTS, NOT_SHOWN]
    assert table.loc["good", "r2"] == pytest.approx(table.loc["turned", "r2"])
    assert table.loc["good", "r2"] > 0.7 and table.loc["noise", "r2"] < 0.1
    assert table.loc["good", "rank_correlation"] == -table.loc["turned", "rank_correlation"]
    assert table.loc["good", "rank_correlation"] > 0.8
    assert (table["models"] == 90).all() and (table["subsets"] == 30).all()
    p = table["p"].sort_values()
    assert table.loc[p.index, "p_adjusted"].to_list() == pytest.approx(
        np.maximum.accumulate(np.minimum(1, p * [3, 2, 1])).to_list()
    )


@pytest.mark.parametrize("said_by", ["experts", "best", "pairs", "subsets"])
def test_a_predictor_that_knows_nothing_is_seldom_called_good(said_by, monkeypatch):
    """Subsets share experts: by exchanging whole subsets, 40 % of "experts" would be called good."""
    monkeypatch.setattr(predictors, "PERMUTATIONS", 99)
    rng = np.random.default_rng(1)
    studies = 250
    p = [judge_one(*world(rng, subsets=15, said_by=said_by), rng)[4] for _ in range(studies)]
    alarms = sum(value <= 0.05 for value in p)
    assert alarms <= stats.binom.ppf(0.9999, studies, 0.05), alarms


def test_what_cannot_be_judged_is_unknown_and_corrects_nothing():
    rng = np.random.default_rng(2)
    merges, x = world(rng, subsets=5)
    flat = Merges(np.ones(len(x)), merges.variants, merges.subsets, merges.members)
    two, of_two = world(rng, subsets=2)
    table = judge(
        {
            "b": (merges, {"x": x, "same": np.full(len(x), 0.1), "unknown": x * np.nan}),
            "flat": (flat, {"x": x}),
            "two": (two, {"x": of_two}),
        }
    )
    assert table["r2"].notna().to_list() == [True, False, False, False, False]
    assert table["p_adjusted"][0] == table["p"][0] and table["p_adjusted"][1:].isna().all()
    assert set(table["verdict"][1:]) == {NOT_SHOWN}
    assert table["models"].to_list() == [len(x), len(x), 0, len(x), 0]
    assert judge({}).empty


def test_a_predictor_may_know_nothing_of_some_models():
    rng = np.random.default_rng(3)
    merges, x = world(rng, slope=3.0)
    known = merges.variants != 1
    partly = np.where(known, x, np.nan)
    one, other = (np.random.default_rng(4) for _ in range(2))
    assert judge_one(merges, partly, one) == judge_one(merges.only(known), x[known], other)


def frames():
    """Three experts of one base, all pairs of them merged by one method."""
    pairs = {("a", "b"): (0.1, 0.4), ("a", "c"): (0.2, 0.3), ("b", "c"): (0.6, 0.1)}
    rows = [
        {"measure": measure, "expert": y, "other": x, "part": part, "number": number}
        for (x, y), numbers in pairs.items()
        for measure, value in zip(("cosine", "sign_conflict"), numbers, strict=True)
        for part, number in (("all", value), ("layer 0", 9.0))
    ]
    rows.append({"measure": "sign_conflict", "expert": "", "other": "", "part": "all", "number": 9})
    models = [
        ("expert", "", e, gain, np.nan) for e, gain in zip("abc", (1.0, -2.0, 4.0), strict=True)
    ]
    models += [("merge", "ties", "+".join(pair), 1.0 + i, 2.0**i) for i, pair in enumerate(pairs)]
    models.append(("merge", "ties", "a+b+c", 2.0, 8.0))
    columns = ["kind", "variant", "experts", "delta_points", "update_norm"]
    found = pd.DataFrame(models, columns=columns).assign(base="m")
    return found, pd.DataFrame(rows).assign(base="m")


def test_predictors_are_those_of_the_merged_experts():
    models, geometry = frames()
    merges = models[models["kind"] == "merge"]
    said = predictors_of(merges, models, geometry[geometry["part"] == "all"])
    expected = {
        "distance": np.log([1, 2, 4, 8]),
        "mean_cosine": [0.1, 0.2, 0.6, 0.3],
        "min_cosine": [0.1, 0.2, 0.6, 0.1],
        "sign_conflict": [0.4, 0.3, 0.1, 0.8 / 3],
        "mean_expert_gain": [-0.5, 2.5, 1.0, 1.0],
        "best_expert_gain": [1.0, 4.0, 4.0, 4.0],
    }
    assert set(said) == set(expected)
    for name, values in expected.items():
        assert said[name] == pytest.approx(values), name
    merged = arrays_of(merges)
    assert merged.members.astype(int).tolist() == [[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 1]]
    assert merged.gains.tolist() == [1.0, 2.0, 3.0, 2.0]
    table = predictor_table(models, geometry)
    assert (table["models"] == 3).all() and (table["base"] == "m").all()
    nothing = predictor_table(models, geometry.iloc[:0]).set_index("predictor")
    assert nothing["r2"].notna().to_dict() == {
        name: name in ("distance", "mean_expert_gain", "best_expert_gain") for name in expected
    }


class Stored:
    """The tables that the sentences read."""

    def __init__(self, rows):
        columns = ["base", "predictor", "subsets", "r2", "p_adjusted", "verdict"]
        self.predictors = pd.DataFrame(rows, columns=columns)


def test_the_sentences_say_what_predicts_and_what_does_not():
    (text,) = prediction_sentences(
        Stored(
            [
                ("m", "distance", 12, -0.2, 0.7, NOT_SHOWN),
                ("m", "mean_cosine", 12, 0.41, 0.0123, PREDICTS),
            ]
        )
    )
    assert text == (
        "On m, which subset of experts gains more by the same method could be predicted from the mean "
        "cosine of the merged experts (R² +0.41, adjusted p 0.012), over 12 subsets, each left out in "
        "turn; 1 of 2 simple predictors were shown to do so."
    )
    (text,) = prediction_sentences(Stored([("m", "distance", 12, -0.2, 0.7, NOT_SHOWN)]))
    assert "none of 1 simple predictors" in text
    assert "the distance to the base, had R² \u22120.20, adjusted p 0.700, over 12" in text
    (text,) = prediction_sentences(Stored([("m", "distance", 0, np.nan, np.nan, NOT_SHOWN)]))
    assert text.startswith("That needs three subsets")
