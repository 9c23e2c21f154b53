"""SCE selects by variance, weights by energy and erases minorities, exactly as its formula says."""

import numpy as np
import pytest
import torch

import oracles
from test_methods import SHAPES, distance, facts_of, task_vectors, update_of
from wildmerge.vectors import elementwise, selection
from wildmerge.vectors.task_vectors import TaskVectors


def uneven(shape, sizes, seed=0):
    """Experts of different energies, so that weighted and plain majorities differ."""
    generator = torch.Generator().manual_seed(seed)
    steps = [size * torch.randn(shape, generator=generator) for size in sizes]
    return TaskVectors(torch.zeros(shape), steps, chunk=512), [s.double().numpy() for s in steps]


@pytest.mark.parametrize("select_topk", [0.001, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("select", ["update", "weights"])
@pytest.mark.parametrize("sizes", [(1, 2), (0.1, 1, 0.5), (1, 0.3, 0, 2, 1)])
def test_options(select_topk, select, sizes):
    vectors, deltas = uneven((48, 21), sizes)
    options = {"select_topk": select_topk, "select": select}
    update = update_of("sce", vectors, lambda_=0.7, **options)
    assert distance(update, oracles.sce(deltas, lam=0.7, **options)) < 1e-5


def test_energies_below_the_floor_weigh_the_same():
    vectors, deltas = uneven((48, 21), (1e-4, 3e-4))
    assert facts_of("sce", vectors, weight_floor=1e-6)["weights"] == [0.5, 0.5]
    assert facts_of("sce", vectors, select_topk=1.0)["weights"] == pytest.approx(
        [0.1, 0.9], abs=0.01
    )
    update = update_of("sce", vectors, weight_floor=1e-6, select_topk=0.3)
    assert distance(update, oracles.sce(deltas, 0.3, weight_floor=1e-6)) < 1e-5


def test_of_equal_variances_the_lowest_index_is_selected():
    """Steps of a few values; elements that all experts moved alike are never selected."""
    generator = torch.Generator().manual_seed(3)
    steps = [torch.randint(0, 3, (40, 30), generator=generator) / 4 for _ in range(3)]
    vectors = TaskVectors(torch.zeros(40, 30), steps, chunk=512)
    deltas = [step.double().numpy() for step in steps]
    for share in (0.1, 0.35, 0.9):
        assert (
            distance(update_of("sce", vectors, select_topk=share), oracles.sce(deltas, share))
            < 1e-6
        )


def test_equal_task_vectors_differ_nowhere_and_are_their_mean_when_all_is_selected():
    name, shape = SHAPES["wide"]
    step = task_vectors(name, shape, 1)[0][0]
    vectors = TaskVectors(torch.zeros(shape), [step, step, step], name=name)
    assert not update_of("sce", vectors).any()
    assert distance(update_of("sce", vectors, select_topk=1.0), step.double().numpy()) < 1e-6


@pytest.mark.parametrize("way", ["loops", "torch"])
def test_variance_is_numpys_in_float64(way, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(elementwise, "_loops", lambda tensor: None)
    rows = torch.randn(3, 9000, generator=torch.Generator().manual_seed(1))
    expected = np.var(rows.double().numpy(), axis=0).astype(np.float32)
    assert np.allclose(elementwise.variance(rows).numpy(), expected, rtol=1e-6)
    equal = torch.tensor([[0.1], [0.1], [0.1]])
    assert elementwise.variance(equal) == 0


@pytest.mark.parametrize("way", ["loops", "torch"])
def test_what_opposes_the_plain_sum_is_erased(way, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(elementwise, "_loops", lambda tensor: None)
    entries = torch.tensor([[1.0, -1.0, 2.0, 0.0], [3.0, 2.0, -2.0, 0.0], [-1.0, -2.0, 0.0, 0.0]])
    total, voters = elementwise.erase(entries, torch.tensor([0.5, 0.25, 0.25]))
    assert total.tolist() == [1.25, -1.0, 1.0, 0.0]
    assert voters.tolist() == [0.75, 0.75, 0.5, 0.0]


@pytest.mark.parametrize("way", ["loops", "torch"])
def test_moments_are_numpys_in_float64_and_add_up(way, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(elementwise, "_loops", lambda tensor: None)
    rows = torch.randn(3, 5000, generator=torch.Generator().manual_seed(1))
    out = torch.ones(2, 3, dtype=torch.float64)
    elementwise.add_moments(rows, out)
    wide = rows.double().numpy()
    expected = 1 + np.stack([abs(wide).sum(1), (wide**2).sum(1)])
    assert np.allclose(out.numpy(), expected, rtol=1e-12)


def test_a_derived_row_is_cut_as_a_task_vector_is():
    vectors, deltas = uneven((100, 90), (1, 1, 1))
    (cut,) = selection.cuts(selection.Derived(vectors, elementwise.variance), 900)
    spread = np.var(np.stack(deltas), axis=0).astype(np.float32)
    assert (spread >= np.float32(cut.magnitude)).sum() == 900
