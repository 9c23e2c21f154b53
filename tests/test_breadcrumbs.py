"""Model Breadcrumbs keeps a band of magnitudes, and combines what is left as its options say."""

import numpy as np
import pytest
import torch

import oracles
from test_methods import SHAPES, distance, task_vectors, update_of
from wildmerge.vectors.task_vectors import TaskVectors

WEIGHTS = [1.0, 2.0, 0.5]


@pytest.mark.parametrize("shape", ["tall", "vector", "embedding"])
@pytest.mark.parametrize("density", [0.001, 0.15, 0.995, 1.0])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("rescale", ["none", "l1"])
def test_the_band_and_its_factor(shape, density, gamma, rescale):
    """Also where nothing is kept (0.1 % of 37), and where outliers and band fill the tensor."""
    vectors, deltas = task_vectors(*SHAPES[shape], 3)
    options = {"density": density, "gamma": gamma, "rescale": rescale}
    update = update_of("breadcrumbs", vectors, **options)
    assert distance(update, oracles.breadcrumbs(deltas, **options)) < 1e-5
    update = update_of("breadcrumbs_ties", vectors, **options)
    assert distance(update, oracles.breadcrumbs_ties(deltas, **options)) < 1e-5


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_how_what_is_kept_is_combined(weights):
    vectors, deltas = task_vectors(*SHAPES["wide"], 3)
    for scale in ("mean", "sum"):
        update = update_of("breadcrumbs", vectors, scale=scale, weights=weights, lambda_=0.7)
        target = oracles.breadcrumbs(deltas, scale=scale, weights=weights, lam=0.7)
        assert distance(update, target) < 1e-5
    for divisor in ("agreeing", "n", "sum"):
        options = {"divisor": divisor, "weights": weights}
        update = update_of("breadcrumbs_ties", vectors, lambda_=0.7, **options)
        assert distance(update, oracles.breadcrumbs_ties(deltas, lam=0.7, **options)) < 1e-5


def test_of_equal_magnitudes_the_lowest_index_counts_as_larger():
    generator = torch.Generator().manual_seed(3)
    steps = torch.randint(1, 4, (40, 30), generator=generator) / 4
    steps *= torch.randint(0, 2, (40, 30), generator=generator) * 2 - 1
    vectors = TaskVectors(torch.zeros(40, 30), [steps], chunk=512)
    for density, gamma in [(0.2, 0.1), (0.35, 0.02), (0.6, 0.4)]:
        update = update_of("breadcrumbs", vectors, density=density, gamma=gamma)
        target = oracles.crumbs(steps.double().numpy(), density, gamma, "none")
        assert np.count_nonzero(target) == int(density * 1200)
        assert np.array_equal(update.numpy(), target)


def test_equal_task_vectors_are_the_crumbs_of_one():
    name, shape = SHAPES["square"]
    vectors, (delta,) = task_vectors(name, shape, 1)
    step = vectors[0]
    equal = TaskVectors(torch.zeros(shape), [step, step, step], name=name)
    for method in ("breadcrumbs", "breadcrumbs_ties"):
        target = oracles.crumbs(delta, 0.15, 0.01, "none")
        assert distance(update_of(method, equal), target) < 1e-6
