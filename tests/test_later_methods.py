"""WUDI, Singular Value Calibration and Consensus: their options and what they are known to do."""

import pytest
import torch

import oracles
from test_methods import SHAPES, distance, facts_of, low_rank_experts, task_vectors, update_of
from wildmerge.errors import Refusal
from wildmerge.merging.report import build
from wildmerge.study.recipe import Recipe
from wildmerge.vectors.task_vectors import TaskVectors

RECIPE = Recipe(base="base", experts=("a", "b"), method="task_arithmetic_svc")
NOTHING = {"warnings": [], "remarks": [], "alignment": {}, "seconds": 0.0}


@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (20, 90)])
def test_wudi_of_low_rank_experts_is_the_least_norm_solution(shape):
    vectors, deltas = low_rank_experts(shape, (3, 5, 4))
    assert distance(update_of("wudi", vectors), oracles.wudi(deltas)) < 1e-5


@pytest.mark.parametrize("alpha", [0.1, 1.0])
@pytest.mark.parametrize("shape", [(60, 40), (40, 60)])
def test_svc_of_low_rank_experts_needs_no_null_space(shape, alpha):
    vectors, deltas = low_rank_experts(shape, (3, 5, 4))
    target = 0.7 * oracles.calibrate(oracles.task_arithmetic(deltas), deltas, alpha)
    update = update_of("task_arithmetic_svc", vectors, alpha=alpha, lambda_=0.7)
    assert distance(update, target) < 1e-5


def test_svc_turns_the_mean_of_unrelated_experts_into_their_sum_and_keeps_that_of_equal_ones():
    one, other = torch.zeros(6, 8), torch.zeros(6, 8)
    one[:3, :4], other[3:, 4:] = torch.randn(3, 4), torch.randn(3, 4)
    apart = TaskVectors(torch.zeros(6, 8), [one, other], name=SHAPES["tall"][0])
    assert distance(update_of("task_arithmetic_svc", apart), (one + other).double().numpy()) < 1e-6
    alike = TaskVectors(torch.zeros(6, 8), [one, one], name=SHAPES["tall"][0])
    assert distance(update_of("task_arithmetic_svc", alike), one.double().numpy()) < 1e-6


def test_svc_warns_of_an_expert_that_hardly_moved():
    one, other = torch.randn(8, 6), torch.randn(8, 6)
    vectors = TaskVectors(torch.zeros(8, 6), [one, 1e-3 * other], name=SHAPES["tall"][0])
    facts = facts_of("task_arithmetic_svc", vectors)
    (found,) = build(RECIPE, {"q": {"norm": 1.0, "lost": 0.0, **facts}}, **NOTHING)["warnings"]
    assert "less than 1% of another" in found and found.endswith("in 1 tensors: q")


@pytest.mark.parametrize(("mask_lambda", "k"), [(0.2, 2), (0.6, 3), (0.0, 3), (0.4, 0), (1.0, 1)])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("consensus_ta", {"scale": "sum"}),
        ("consensus_ties", {"density": 0.4, "divisor": "n"}),
        ("consensus_ties", {"density": 1.0, "divisor": "sum"}),
    ],
)
def test_consensus_options(method, options, mask_lambda, k):
    vectors, deltas = task_vectors(*SHAPES["wide"], 3)
    given = {"mask_lambda": mask_lambda, "k": k, **options}
    update = update_of(method, vectors, lambda_=0.7, **given)
    assert distance(update, getattr(oracles, method)(deltas, lam=0.7, **given)) < 1e-5


def test_more_experts_than_there_are_cannot_agree():
    vectors, _ = task_vectors(*SHAPES["wide"], 2)
    with pytest.raises(Refusal, match="k: 3 of 2 experts"):
        update_of("consensus_ta", vectors, k=3)
