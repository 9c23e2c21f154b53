"""Trimming keeps exactly the k largest magnitudes, lowest index first, whatever the data look like."""

import numpy as np
import pytest
import torch

from wildmerge.vectors import selection
from wildmerge.vectors.task_vectors import TaskVectors

SIZE = 20_000


def normal(generator):
    return torch.randn(SIZE, generator=generator)


def bfloat16_steps(generator):
    """What fine-tuning in bfloat16 leaves: a few distinct steps, most of them zero."""
    base = 0.02 * torch.randn(SIZE, generator=generator)
    moved = base.bfloat16().float() + 5e-5 * torch.randn(SIZE, generator=generator)
    return moved.bfloat16().float() - base.bfloat16().float()


def two_values(generator):
    return torch.randint(0, 2, (SIZE,), generator=generator) - 0.5


def few_moved(generator):
    """Fewer entries moved than are kept: the cut is at zero."""
    return torch.where(torch.rand(SIZE, generator=generator) < 0.01, 1.0, 0.0)


def one_block_moved(generator):
    """The worst a sample can meet: all that counts in one place."""
    steps = 1e-6 * torch.randn(SIZE, generator=generator)
    steps[7000:9000] = torch.randn(2000, generator=generator)
    return steps


DATA = [normal, bfloat16_steps, two_values, few_moved, one_block_moved]


def trimmed(steps, kept, **options):
    """Trim three task vectors of a zero base; returns what is left of each."""
    vectors = TaskVectors(torch.zeros(SIZE), steps, chunk=1024)
    cuts = selection.cuts(vectors, kept, **options)
    left = torch.zeros(len(steps), SIZE)
    for at, deltas in vectors.chunks():
        for cut, delta in zip(cuts, deltas, strict=True):
            cut.trim_(delta, at)
        left[:, at] = deltas
    return left.numpy()


def k_largest(step, kept):
    """The same by a stable sort."""
    order = np.argsort(-np.abs(step.numpy()), kind="stable")[:kept]
    left = np.zeros(SIZE, np.float32)
    left[order] = step.numpy()[order]
    return left


@pytest.mark.parametrize("kept", [1, 7, 2000, 10_001, SIZE - 1])
@pytest.mark.parametrize("data", DATA)
def test_the_k_largest_are_kept(data, kept):
    steps = [data(torch.Generator().manual_seed(seed)) for seed in range(3)]
    for left, step in zip(trimmed(steps, kept), steps, strict=True):
        assert np.array_equal(left, k_largest(step, kept))


@pytest.mark.parametrize("sampled", [1, 3, 50, SIZE, 2 * SIZE])
@pytest.mark.parametrize("data", DATA)
def test_the_sample_never_changes_the_result(data, sampled):
    """Also where it misleads: a sample of one entry, brackets that miss and are widened."""
    steps = [data(torch.Generator().manual_seed(3))]
    left = trimmed(steps, 2000, sampled=sampled)
    assert np.array_equal(left[0], k_largest(steps[0], 2000))


def test_a_bracket_that_misses_is_widened(monkeypatch):
    steps = [normal(torch.Generator().manual_seed(seed)) for seed in range(3)]
    monkeypatch.setattr(selection, "_DEVIATIONS", 1e-3)
    for left, step in zip(trimmed(steps, 2000, sampled=100), steps, strict=True):
        assert np.array_equal(left, k_largest(step, 2000))
