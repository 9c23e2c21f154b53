"""What is done to chunks: compiled loops and torch agree, with each other and with NumPy in float64."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from wildmerge.checkpoints.stored import File, StoredTensor
from wildmerge.errors import Refusal
from wildmerge.vectors import elementwise

WIDTHS = [1, 511, 512, 5000, 9000]


@pytest.fixture(params=["loops", "torch"])
def way(request, monkeypatch):
    """Either way, both on this CPU: torch's is what a GPU runs."""
    if request.param == "torch":
        monkeypatch.setattr(elementwise, "_loops", lambda tensor: None)
    return request.param


def normal(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def in_file(path, rows):
    """The rows (n, c) as tensors in one file, each with some bytes before it."""
    parts, tensors, start = [], [], 0
    for row in rows:
        parts += [b"\xff" * 6, row.contiguous().view(torch.uint8).numpy().tobytes()]
        tensors.append((start + 6, row))
        start += 6 + len(parts[-1])
    path.write_bytes(b"".join(parts))
    file = File(path)
    return [StoredTensor(file, start, row.dtype, tuple(row.shape)) for start, row in tensors]


@pytest.fixture(params=["in memory", "in a file"])
def stored_as(request, tmp_path):
    """Where the experts' weights are."""
    return list if request.param == "in memory" else lambda rows: in_file(tmp_path / "w", rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("at", [slice(0, 1), slice(511, 9000), slice(512, 150_000)])
def test_subtract_is_the_float32_difference(way, stored_as, dtype, at):
    width = at.stop - at.start
    stored, base = normal(3, 150_000).to(dtype), normal(width, seed=1)
    out, total = torch.empty(3, width), torch.empty(width)
    added = elementwise.subtract(stored_as(stored), at, base, out)
    expected = stored[:, at].float().numpy() - base.numpy()
    assert np.array_equal(out.numpy(), expected)
    assert added == pytest.approx(expected.astype(float).sum(), abs=0.05)
    added = elementwise.subtract_and_add_up(stored_as(stored), at, base, total)
    assert np.array_equal(total.numpy(), expected[0] + expected[1] + expected[2])
    assert added == pytest.approx(expected.astype(float).sum(), abs=0.05)


def test_every_bfloat16_is_read(tmp_path):
    """All 65536 of them: zeros of both signs, subnormal numbers, the largest, infinities, NaN."""
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    (stored,) = in_file(tmp_path / "w", every[None])
    for start in range(0, 1 << 16, 1 << 8):  # in most of these chunks all are finite
        at, out = slice(start, start + 256), torch.empty(1, 256)
        elementwise.subtract([stored], at, torch.zeros(256), out)
        assert np.array_equal(out[0].numpy(), every[at].float().numpy(), equal_nan=True)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_sum_shows_every_value_that_is_not_finite(way, stored_as, dtype, value):
    for place in (0, 65_535, 65_536, 149_999):
        stored = normal(2, 150_000).to(dtype)
        stored[1, place] = value
        weights, whole = stored_as(stored), slice(0, 150_000)
        for what, shape in (
            (elementwise.subtract, (2, 150_000)),
            (elementwise.subtract_and_add_up, (150_000,)),
        ):
            total = what(weights, whole, torch.zeros(150_000), torch.empty(shape))
            assert not np.isfinite(total)


def test_a_file_that_became_shorter_is_named(way, tmp_path):
    weights = in_file(tmp_path / "w", normal(2, 9000).bfloat16())
    (tmp_path / "w").write_bytes(b"\0" * 1000)
    for what, shape in (
        (elementwise.subtract, (2, 9000)),
        (elementwise.subtract_and_add_up, (9000,)),
    ):
        with pytest.raises(Refusal, match="w: shorter than it was"):
            what(weights, slice(0, 9000), torch.zeros(9000), torch.empty(shape))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("n", [1, 2, 3, 12])
@pytest.mark.parametrize("exact", [False, True])
def test_inner_products(way, n, width, exact):
    deltas = normal(n, width, scale=1e-3)
    found = elementwise.inner_products(deltas, exact=exact).numpy()
    rows = deltas.double().numpy()
    norms = np.linalg.norm(rows, axis=1)
    error = np.abs(found - rows @ rows.T) / np.outer(norms, norms)
    assert error.max() < (1e-13 if exact else 2e-7)
    assert np.array_equal(found, found.T)


def test_inner_products_do_not_depend_on_chunks():
    """Blocks are summed one after the other into float64: the same numbers, grouped alike."""
    deltas = normal(4, 8 * elementwise.BLOCK)
    at_once = elementwise.inner_products(deltas)
    pieces = [elementwise.inner_products(d.contiguous()) for d in deltas.split(1024, dim=1)]
    assert torch.allclose(sum(pieces), at_once, rtol=1e-15, atol=0)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.6), (0.5, 0.5), (0.0, np.inf), (9.0, 10.0)])
def test_split(way, low, high):
    row = (normal(9000) * 100).round() / 100  # with many equal magnitudes
    row[:3] = torch.tensor([0.5, -0.5, 0.6])
    low, high = float(np.float32(low)), float(np.float32(high))
    above, inside = elementwise.split(row, low, high)
    sizes = np.abs(row.numpy())
    assert above == (sizes > np.float32(high)).sum()
    expected = sizes[(sizes >= np.float32(low)) & (sizes <= np.float32(high))]
    assert np.array_equal(inside, expected)


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 2.0, 0.5]])
def test_elect_adds_up_what_agrees(way, weights):
    deltas = normal(3, 9000)
    deltas[deltas.abs() < 0.7] = 0  # as trimming leaves them
    total, voters = elementwise.elect(deltas.clone(), weights)
    w = np.array(weights)[:, None]
    entries = w * deltas.double().numpy()
    agree = np.sign(entries) == np.where(entries.sum(0) >= 0, 1, -1)
    assert np.allclose(total.numpy(), (entries * agree).sum(0), rtol=1e-6, atol=1e-7)
    assert np.allclose(voters.numpy(), (w * agree).sum(0), rtol=1e-6)


def test_elect_lets_an_exact_tie_elect_plus(way):
    deltas = torch.tensor([[1.0, -2.0, 0.0, -0.0], [-1.0, 2.0, 0.0, -0.0]])
    total, voters = elementwise.elect(deltas, [1.0, 1.0])
    assert total.tolist() == [1, 2, 0, 0] and voters.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0])
def test_an_element_matters_to_those_who_moved_it_most(way, factor):
    deltas = normal(3, 9000)
    deltas[deltas.abs() < 0.5] = 0
    counts = elementwise.count_wanted(deltas, deltas.sum(0), factor)
    wide = deltas.double().numpy()
    expected = (np.abs(wide) > factor * np.abs(wide.sum(0) - wide)).sum(0)
    assert np.array_equal(counts.numpy(), expected)


def test_loops_give_the_same_in_every_thread():
    deltas = normal(5, 70_000)

    def products(_):
        return elementwise.inner_products(deltas)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(products, range(16)))
    assert all(torch.equal(found[0], other) for other in found)


def test_loops_are_compiled_without_a_place_to_keep_them():
    """As in a container whose folders may not be written to."""
    code = (
        "import torch; from wildmerge.vectors import elementwise\n"
        "print(elementwise.inner_products(torch.ones(2, 1024)).tolist())"
    )
    nowhere = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "_IPythonCacheLocator"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=nowhere)
    assert done.stdout.strip() == "[[1024.0, 1024.0], [1024.0, 1024.0]]"
