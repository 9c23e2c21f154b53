"""The fast routes to spectra and polar factors stand up to a plain float64 SVD by another library."""

import numpy as np
import pytest
import torch

from wildmerge.vectors import linalg

SHAPES = [(300, 300), (420, 300), (300, 420), (700, 24), (3, 5), (1, 7), (1, 1)]


def matrix(shape, sigma, seed=0):
    """A float64 matrix with these singular values (cut to the shape) and random directions."""
    generator = np.random.default_rng(seed)
    size = min(shape)
    u, _ = np.linalg.qr(generator.standard_normal((shape[0], size)))
    v, _ = np.linalg.qr(generator.standard_normal((shape[1], size)))
    return (u * np.asarray(sigma)[:size]) @ v.T


def error(ours, theirs):
    return np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs)


SPECTRA = {
    "flat": np.ones(300),
    "condition 1e3": np.geomspace(1, 1e-3, 300),
    "condition 1e6": np.geomspace(1, 1e-6, 300),
    "one small": np.r_[np.ones(299), 1e-6],
    "two scales": np.r_[np.full(150, 1.0), np.full(150, 1e-6)],
    "tiny": 1e-20 * np.geomspace(1, 1e-2, 300),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sigma", SPECTRA.values(), ids=SPECTRA)
def test_polar_factor_and_other_functions(shape, sigma):
    a = matrix(shape, sigma)
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    found = linalg.spectrum(torch.from_numpy(a))
    assert np.allclose(found.sigma, s, rtol=0, atol=1e-7 * s[0])
    assert error(linalg.polar(torch.from_numpy(a)), u @ vt) < 1e-5
    raised = np.maximum(s, s[len(s) // 3])
    assert error(found.with_values(torch.from_numpy(raised)), (u * raised) @ vt) < 1e-5


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_directions_below_the_rank_are_dropped(shape):
    a = matrix(shape, np.r_[np.geomspace(1, 1e-3, 40), np.zeros(260)])
    u, _, vt = np.linalg.svd(a, full_matrices=False)
    polar = linalg.polar(torch.from_numpy(a), drop_null=True)
    assert error(polar, u[:, :40] @ vt[:40]) < 1e-6


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("sigma", list(SPECTRA.values())[:2], ids=list(SPECTRA)[:2])
def test_leading_triplets_rebuild_the_best_approximation(shape, sigma):
    a = matrix(shape, sigma * np.linspace(1.5, 1, 300))
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    left, values, right = linalg.spectrum(torch.from_numpy(a)).leading(100)
    best = (u[:, :100] * s[:100]) @ vt[:100]
    assert error((left.T * values) @ right, best) < 1e-6
    assert torch.allclose(left @ left.T, torch.eye(100, dtype=torch.float64), atol=1e-8)
    assert torch.allclose(right @ right.T, torch.eye(100, dtype=torch.float64), atol=1e-8)


def test_a_rank_deficient_matrix_still_gets_orthogonal_factors():
    """Null directions are arbitrary, but they must be orthogonal to all others."""
    polar = linalg.polar(torch.from_numpy(matrix((60, 40), np.r_[np.ones(10), np.zeros(30)])))
    assert torch.allclose(polar.T @ polar, torch.eye(40, dtype=torch.float64), atol=1e-10)


def test_zero_stays_zero():
    found = linalg.spectrum(torch.zeros(6, 4))
    assert not found.with_values(torch.zeros(4, dtype=torch.float64)).any()
    assert found.with_values(torch.zeros(4, dtype=torch.float64)).shape == (6, 4)


@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.parametrize("sigma", SPECTRA.values(), ids=SPECTRA)
def test_left_vectors_are_as_orthogonal_as_the_bound_says(shape, sigma):
    """By rows * eps * (sigma_1 / sigma_s)^2, which spares most matrices a closer look."""
    a = matrix(shape, sigma)
    found = linalg.spectrum(torch.from_numpy(a))
    tall, vectors = found._tall.numpy(), found._vectors.numpy()
    left = tall @ vectors / found.sigma.numpy()
    bound = max(shape) * np.finfo(float).eps * float(found.sigma[0] / found.sigma[-1]) ** 2
    assert np.linalg.norm(left.T @ left - np.eye(300), 2) <= bound


def test_leading_triplets_are_of_the_dtype_that_was_given():
    a = torch.from_numpy(matrix((60, 40), np.geomspace(1, 0.1, 40)))
    exact = linalg.spectrum(a).leading(20)
    for ours, theirs in zip(linalg.spectrum(a.float()).leading(20), exact, strict=True):
        assert (ours.double().abs() - theirs.abs()).abs().max() < 1e-5
    assert [part.dtype for part in linalg.spectrum(a.float()).leading(20)] == [
        torch.float32,
        torch.float64,
        torch.float32,
    ]


def test_no_triplets_of_a_single_row():
    left, sigma, right = linalg.spectrum(torch.ones(1, 7)).leading(0)
    assert (left.shape, sigma.shape, right.shape) == ((0, 1), (0,), (0, 7))
