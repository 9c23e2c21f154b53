"""DARE and DELLA: what they keep, whatever chunk, thread or device asks for it."""

import shutil

import numpy as np
import pytest
import torch

import oracles_random
from test_methods import SHAPES, distance, task_vectors, update_of
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.study.recipe import Recipe
from wildmerge.vectors.task_vectors import TaskVectors

METHODS = ("dare_linear", "dare_ties", "della_linear", "della")


@pytest.mark.parametrize("rescale", ["probability", "l1", "none"])
@pytest.mark.parametrize("shape", ["wide", "vector"])
@pytest.mark.parametrize("method", METHODS)
def test_options(method, shape, rescale):
    vectors, deltas = task_vectors(*SHAPES[shape], 3)
    given = {"density": 0.3, "seed": 5, "rescale": rescale, "weights": [1.0, 2.0, 0.5]}
    if method.startswith("della"):
        given["epsilon"] = 0.2
    how = {"divisor": "n"} if method in {"dare_ties", "della"} else {"scale": "sum"}
    update = update_of(method, vectors, lambda_=0.7, **given, **how)
    target = getattr(oracles_random, method)(deltas, vectors.name, lam=0.7, **given, **how)
    assert distance(update, target) < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_density_of_one_keeps_everything(method):
    vectors, _ = task_vectors(*SHAPES["wide"], 3)
    plain = "ties" if method in {"dare_ties", "della"} else "task_arithmetic"
    target = update_of(plain, vectors, **({"density": 1.0} if plain == "ties" else {}))
    assert distance(update_of(method, vectors, density=1.0), target.numpy()) < 1e-6


def test_della_keeps_large_entries_of_a_row_more_often():
    delta = torch.arange(1.0, 1001).repeat(400, 1)
    vectors = TaskVectors(torch.zeros(400, 1000), [delta], name=SHAPES["tall"][0])
    kept = update_of("della", vectors, density=0.4, epsilon=0.3) != 0
    shares = kept.double().mean(0)
    chances = 0.1 + 0.6 * np.arange(1000) / 999
    deviations = np.sqrt(chances * (1 - chances) / 400)
    assert np.abs((shares.numpy() - chances) / deviations).max() < 5
    assert float(kept.double().mean()) == pytest.approx(0.4, abs=0.005)


def test_a_column_is_kept_by_its_density():
    vectors, deltas = task_vectors("layers.0.router.weight", (50, 1), 2)
    target = oracles_random.della(deltas, vectors.name)
    assert distance(update_of("della", vectors), target) < 1e-5


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.9, 0.1), (0.15, 0.15)])
def test_chances_outside_of_0_and_1_are_refused(density, epsilon):
    vectors, _ = task_vectors(*SHAPES["wide"], 2)
    with pytest.raises(Refusal, match="lower epsilon"):
        update_of("della", vectors, density=density, epsilon=epsilon)


@pytest.mark.parametrize("method", METHODS)
def test_an_expert_keeps_the_same_entries_beside_any_others(method):
    """So that subsets and methods can be compared pair by pair."""
    generator = torch.Generator().manual_seed(2)
    base = torch.zeros(20, 64)
    one, *others = (torch.randn(20, 64, generator=generator) for _ in range(3))
    names = ["base", "x", "y", "one"]
    alone = TaskVectors(base, [one], name="w", identities=["one"])
    among = TaskVectors(base, [*others, one], name="w", sources=names, identities=names[1:])
    weights = [1e-30, 1e-30, 1.0]  # nothing of the others is seen
    how = {"scale": "sum"} if "linear" in method else {"divisor": "sum"}
    both = [update_of(method, alone, **how), update_of(method, among, weights=weights, **how)]
    kept = both[0] != 0
    assert 0.4 < float(kept.double().mean()) < 0.6
    assert torch.equal(both[1].abs() > 1e-20, kept)


@pytest.mark.parametrize("rescale", ["probability", "none"])
@pytest.mark.parametrize("method", METHODS)
def test_compiled_loops_and_torch_give_the_same_bytes(method, rescale, monkeypatch):
    vectors, _ = task_vectors("layers.0.mlp.up_proj.weight", (30, 129), 3)
    compiled = update_of(method, vectors, rescale=rescale)
    monkeypatch.setattr("wildmerge.vectors.elementwise._loops", lambda tensor: None)
    monkeypatch.setattr("wildmerge.vectors.draws._loops", lambda device: None)
    assert torch.equal(update_of(method, vectors, rescale=rescale), compiled)


def merged(tiny, out, experts=None, **how):
    experts = experts or tiny.experts
    recipe = Recipe(base=str(tiny.base), experts=tuple(map(str, experts)), method="dare_ties")
    merge(recipe, out, progress=False, **how)
    return (out / "model.safetensors").read_bytes()


def test_a_merge_depends_neither_on_threads_and_chunks_nor_on_where_experts_lie(tiny, tmp_path):
    one = merged(tiny, tmp_path / "one", threads=1, chunk=512)
    assert merged(tiny, tmp_path / "two", threads=2, chunk=1 << 20) == one
    moved = [shutil.copytree(e, tmp_path / f"moved {i}") for i, e in enumerate(tiny.experts)]
    assert merged(tiny, tmp_path / "three", moved) == one
    names = {str(expert): f"org/{expert.name}@1" for expert in tiny.experts}
    assert merged(tiny, tmp_path / "four", identities=names) != one


def test_experts_of_the_same_content_are_refused(tiny, tmp_path):
    copied = shutil.copytree(tiny.experts[0], tmp_path / "copied")
    with pytest.raises(Refusal, match="copied has the same content as"):
        merged(tiny, tmp_path / "out", [*tiny.experts, copied])
