"""The table of comparisons: each row is what its name says, computed here in another way."""

import itertools
import math
import re
import warnings

import numpy as np
import pandas as pd
import pytest

import synthetic_results
from wildmerge.reporting.printing import MINUS, fixed
from wildmerge.reporting.story import study as story
from wildmerge.reporting.tables.arrays import base_answers, choices
from wildmerge.reporting.tables.collect import collect
from wildmerge.reporting.tables.study import aggregate, read_tables
from wildmerge.statistics.answers import BaseAnswers
from wildmerge.statistics.comparisons import compare
from wildmerge.statistics.of_models import against_each
from wildmerge.statistics.paired import difference, item_variance
from wildmerge.statistics.rows import COLUMNS, mcnemar


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    results = tmp_path_factory.mktemp("comparisons") / "results"
    synthetic_results.build(results, variants={"ties": {}, "iso_c": {}, "tsv_m": {}}, items=60)
    aggregate(results, "demo")
    return results


@pytest.fixture(scope="module")
def found(results):
    return collect(results, "demo")


@pytest.fixture(scope="module")
def tables(results):
    return read_tables(results / "demo/tables")


def made_up(models=4, seed=0, clustered=True):
    """Answers of a base, two experts and their merges; one benchmark asks questions twice."""
    generator = np.random.default_rng(seed)
    rows = [("base", "", "", 0, ""), ("expert", "", "", 1, "a"), ("expert", "", "", 1, "b")]
    rows += [("merge", "ties", f"ties {i}", 2, "a+b") for i in range(models)]
    frame = pd.DataFrame(rows, columns=["kind", "method", "variant", "n", "experts"])
    frame = frame.assign(base="m", subset=0, recipe_id=[f"{i:016x}" for i in range(len(rows))])
    values = {
        "right or wrong": generator.integers(0, 2, (len(rows), 40)).astype(np.int8),
        "shares": generator.random((len(rows), 30)),
    }
    clusters = {"right or wrong": np.repeat(np.arange(16), [4] * 8 + [1] * 8), "shares": None}
    if not clustered:
        clusters["right or wrong"] = None
    known = {label: np.ones(len(rows), bool) for label in values}
    return BaseAnswers(frame, values, known, clusters, {"right or wrong": 0.25, "shares": math.nan})


def test_products_give_the_estimates_of_differences():
    answers = made_up()
    for row, of_row in zip(
        answers.merges, against_each(answers, answers.merges, answers.experts), strict=True
    ):
        for expert, estimate in zip(answers.experts, of_row, strict=True):
            plain = difference([d[0] for d in answers.differences([row], expert)], answers.groups)
            assert estimate.value == pytest.approx(plain.value, abs=1e-12)
            assert estimate.items == pytest.approx(plain.items, rel=1e-9)
            assert estimate.df == pytest.approx(plain.df, rel=1e-9)


def test_few_clusters_of_unlike_sizes_have_fewer_degrees_of_freedom():
    values = np.random.default_rng(1).standard_normal(40)
    sizes = np.array([10, 10, 5, 5, 5, 5])
    _, df = item_variance(values, 1, np.repeat(np.arange(6), sizes))
    assert df == pytest.approx((sizes**2).sum() ** 2 / (sizes**4).sum() - 1)


def test_mcnemar_is_statsmodels():
    from statsmodels.stats.contingency_tables import mcnemar as oracle

    gained, lost = np.array([0, 3, 7, 20, 5]), np.array([0, 0, 2, 21, 5])
    expected = [
        oracle([[10, b], [a, 20]], exact=True).pvalue for a, b in zip(gained, lost, strict=True)
    ]
    np.testing.assert_allclose(mcnemar(gained, lost), expected, atol=1e-12)


def test_a_size_is_the_mean_of_its_models_with_the_error_of_items_and_subsets(tables, found):
    sizes = tables.comparisons[
        (tables.comparisons["what"] == "size")
        & (tables.comparisons["reference"] == "base")
        & (tables.comparisons["label"] == "")
        & ~tables.comparisons["is_average"]
        & (tables.comparisons["n"] > 1)
    ]
    assert len(sizes) == 2 * 3 * 3
    for row in sizes.itertuples():
        of_base = found.recipes[found.recipes["base"] == row.base]
        base = of_base.loc[of_base["kind"] == "base", "recipe_id"].iat[0]
        ids = of_base.loc[
            (of_base["variant"] == row.variant) & (of_base["n"] == row.n), "recipe_id"
        ]
        changes = {
            label: pd.DataFrame(
                [found.answers[i, label].values - found.answers[base, label].values for i in ids]
            )
            for label in found.labels
        }
        points = 100 * np.mean([change.to_numpy().mean() for change in changes.values()])
        assert row.estimate_points == pytest.approx(points, abs=1e-9)
        count = len(changes)
        of_items = sum(
            change.mean().var() / change.shape[1] + 2 / (count * change.shape[1] ** 2)
            for change in changes.values()
        )
        every, tried = max(math.comb(6, row.n), len(ids)), len(ids)
        means = np.mean([change.mean(axis=1) for change in changes.values()], axis=0)
        drawn = (1 - tried / every) * pd.Series(means).var() / tried if tried < every else 0.0
        if tried < 5 and tried < every:
            assert row.over == "tried subsets"
            drawn = 0.0
        error = 100 * math.sqrt(of_items / count**2 + drawn)
        assert row.stderr_points == pytest.approx(error, rel=1e-9)


def test_adjusted_p_values_are_those_of_their_family(tables):
    from statsmodels.stats.multitest import multipletests

    families = tables.comparisons[tables.comparisons["family"] != ""].groupby("family")
    assert len(families) > 10
    for _, rows in families:
        (adjustment,) = rows["adjustment"].unique()
        method = {"Holm": "holm", "Benjamini-Hochberg": "fdr_bh"}[adjustment]
        expected = multipletests(rows["p"], method=method)[1]
        np.testing.assert_allclose(rows["p_adjusted"], expected, atol=1e-12)


def test_a_verdict_follows_from_the_adjusted_p_value(tables):
    for row in tables.comparisons.itertuples():
        if row.verdict in {"gain", "loss"}:
            assert row.p_adjusted <= 0.05
            assert (row.estimate_points > 0) == (row.verdict == "gain")
        else:
            assert row.p_adjusted > 0.05
        assert row.low_points <= row.estimate_points <= row.high_points


def test_to_beat_every_expert_is_to_beat_each_of_them(tables, found):
    rows = tables.comparisons[tables.comparisons["reference"] == "every_expert"]
    (answers, _) = base_answers(found)
    for row in rows[rows["base"] == answers.models["base"].iat[0]].itertuples():
        model = int(np.flatnonzero(answers.models["recipe_id"] == row.recipe_id)[0])
        lows = [
            difference([d[0] for d in answers.differences([model], expert)]).interval()[0]
            for expert in answers.experts
        ]
        assert row.low_points == pytest.approx(100 * min(lows), abs=1e-9)


def test_a_study_of_one_item_and_equal_answers_has_intervals_and_no_warning():
    answers = made_up(clustered=False)
    equal = {
        "one item": np.ones((len(answers.models), 1), np.int8),
        "equal": np.zeros((len(answers.models), 20), np.int8),
    }
    same = BaseAnswers(
        answers.models,
        equal,
        {label: np.ones(len(answers.models), bool) for label in equal},
        dict.fromkeys(equal),
        dict.fromkeys(equal, 0.25),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = compare([same], {"any method": [f"ties {i}" for i in range(4)]})
    against_models = table[table["reference"] != "chance"]
    assert (against_models["estimate_points"] == 0).all()
    assert not against_models["verdict"].isin(["gain", "loss"]).any()
    assert (table["high_points"] > table["low_points"]).all()
    assert list(table) == list(COLUMNS)


def test_no_comparison_depends_on_the_order_of_bases(found):
    forward = compare(base_answers(found), choices(found.recipes))
    backward = compare(base_answers(found)[::-1], choices(found.recipes))
    keys = ["what", "base", "variant", "n", "recipe_id", "label", "reference", "reference_name"]
    keys += ["estimator"]
    one, other = (f.sort_values(keys).reset_index(drop=True) for f in (forward, backward))
    pd.testing.assert_frame_equal(one, other, rtol=1e-12, check_exact=False)


def test_every_printed_number_is_a_cell_of_the_tables(results, tables):
    """Each number with decimals in the story and in the LaTeX tables, rounded as it is printed."""
    cells = set()
    for frame in (tables.comparisons, tables.scores, tables.benchmarks, tables.table1):
        numbers = frame.select_dtypes("number").to_numpy().ravel()
        for digits, factor in itertools.product((1, 2), (1, 100)):
            cells |= {fixed(factor * value, digits).lstrip("-") for value in numbers}
    for table in (tables.table1, tables.table2, tables.table3):
        for column in ("delta_points", "reference_accuracy_pct"):
            cells |= {fixed(value, d).lstrip("-") for value in table[column] for d in (1, 2)}
    models = tables.models
    means = [models["accuracy"], tables.scores.groupby("base")["chance"].mean()]
    cells |= {fixed(100 * value, 1) for frame in means for value in frame}
    sentences = [
        *story.answer(tables),
        *itertools.chain(*(c.sentences for c in story.chapters(tables))),
    ]
    texts = ["\n".join(sentences).replace(MINUS, "-")]
    texts += [(results / f"demo/tables/table{n}.tex").read_text() for n in (1, 2, 3)]
    printed = set(
        re.findall(
            r"(?<![\d.])\d+\.\d+(?![\d.])", re.sub(r"tabcolsep.*|=[\d.]+", "", "\n".join(texts))
        )
    )
    assert len(printed) > 50
    assert printed <= cells
