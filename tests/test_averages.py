"""Averages that go by angles, against their formulas on whole vectors in float64."""

import numpy as np
import pytest
import torch

from mini_study import make_study
from test_methods import SHAPES, distance, facts_of, update_of
from wildmerge.errors import Refusal
from wildmerge.merging.merge import merge
from wildmerge.methods import catalogue as methods
from wildmerge.planning.lock import make_lock
from wildmerge.planning.models import list_models
from wildmerge.study.file import load_study
from wildmerge.study.recipe import Recipe
from wildmerge.vectors import angles, elementwise
from wildmerge.vectors.task_vectors import TaskVectors

WEIGHTS = [1.0, 2.0, 0.5, 0.7, 1.3]
STEPS = [1e-3, 0.05, 3.0]
"""From those of fine-tunes, whose angles are a thousandth, to unrelated weights."""


def family(name, shape, n, step, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator)
    sizes = [step * (1 + i / 2) for i in range(n)]
    experts = [base + size * torch.randn(shape, generator=generator) for size in sizes]
    return TaskVectors(base, experts, name=name, chunk=512), base, experts


def slerp(first, second, t, linear_above):
    norms = np.linalg.norm(first), np.linalg.norm(second)
    if min(norms) == 0:
        return (1 - t) * first + t * second
    cosine = (first / norms[0]).ravel() @ (second / norms[1]).ravel()
    if abs(cosine) > linear_above:
        return (1 - t) * first + t * second
    theta = np.arccos(cosine)
    return (np.sin((1 - t) * theta) * first + np.sin(t * theta) * second) / np.sin(theta)


def multislerp(points, w):
    """With weights; `oracles.multislerp` has none."""
    mean = sum(x * p / np.linalg.norm(p) for x, p in zip(w, points, strict=True) if p.any())
    length = sum(x * np.linalg.norm(p) for x, p in zip(w, points, strict=True))
    return length * mean / np.linalg.norm(mean)


def karcher(points, w):
    """By steps half as long, until nothing moves: another way to the same point."""
    units = [p / np.linalg.norm(p) for p in points]
    w = np.array(w) / np.sum(w)
    m = units[0]
    for _ in range(200):
        tangents = []
        for x, unit in zip(w, units, strict=True):
            across = unit - (unit * m).sum() * m
            sine = np.linalg.norm(across)
            theta = np.arctan2(sine, (unit * m).sum())
            tangents.append(x * theta / sine * across if sine > 0 else 0 * across)
        step = sum(tangents) / 2
        m = m + step
        m /= np.linalg.norm(m)
    return sum(x * np.linalg.norm(p) for x, p in zip(w, points, strict=True)) * m


def wide(tensors):
    return [tensor.double().numpy() for tensor in tensors]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("linear_above", [0.9995, 1.0])
def test_slerp(shape, step, t, linear_above):
    vectors, base, experts = family(*SHAPES[shape], 2, step)
    options = {"t": t, "linear_above": linear_above}
    start, first, second = wide([base, *experts])
    update = update_of("slerp", vectors, **options)
    assert distance(update, slerp(first, second, **options) - start) < 1e-5
    update = update_of("slerp", vectors, space="task_vectors", **options)
    assert distance(update, slerp(first - start, second - start, **options)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("n", [2, 3, 5])
def test_multislerp(shape, step, n):
    vectors, base, experts = family(*SHAPES[shape], n, step)
    start, *points = wide([base, *experts])
    w = np.array(WEIGHTS[:n])
    update = update_of("multislerp", vectors, weights=WEIGHTS[:n])
    target = multislerp([p - start for p in points], w / w.sum())
    assert distance(update, target) < 1e-5
    update = update_of("multislerp", vectors, weights=WEIGHTS[:n], normalize_weights=False)
    assert distance(update, w.sum() * target) < 1e-5
    update = update_of("multislerp", vectors, space="weights")
    assert distance(update, multislerp(points, np.ones(n) / n) - start) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_karcher(shape, step, n, weights):
    vectors, base, experts = family(*SHAPES[shape], n, step)
    start, *points = wide([base, *experts])
    w = weights[:n] if weights else None
    update = update_of("karcher", vectors, weights=w, max_iter=100, tol=1e-9)
    assert distance(update, karcher(points, w or np.ones(n)) - start) < 1e-5
    assert facts_of("karcher", vectors) == {}


def test_of_fine_tunes_all_three_are_the_mean_of_the_weights():
    """What the documentation says of them: at angles of a thousandth nothing but the mean is left."""
    vectors, base, experts = family(*SHAPES["square"], 2, 1e-3)
    mean = np.mean(wide(experts), axis=0) - base.double().numpy()
    for method, options in [
        ("slerp", {}),
        ("multislerp", {"space": "weights"}),
        ("karcher", {}),
    ]:
        assert distance(update_of(method, vectors, **options), mean) < 2e-3


@pytest.mark.parametrize("method", ["slerp", "karcher", "multislerp"])
def test_zero_and_equal_task_vectors(method):
    name, shape = SHAPES["tall"]
    base, step = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    still = TaskVectors(base, [base.clone(), base.clone()], name=name)
    assert not update_of(method, still).any()
    assert "warning" not in facts_of(method, still)
    expert = base + 0.1 * step
    equal = TaskVectors(base, [expert, expert.clone()], name=name)
    assert distance(update_of(method, equal), (expert - base).double().numpy()) < 1e-5
    zero = TaskVectors(torch.zeros(shape), [torch.zeros(shape)] * 2, name=name)
    assert not update_of(method, zero).any()


def test_one_task_vector_of_zero():
    name, shape = SHAPES["tall"]
    base, step = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    start, expert = wide([base, base + step])
    vectors = TaskVectors(base, [base + step, base.clone()], name=name)
    update = update_of("slerp", vectors, space="task_vectors")
    assert distance(update, (expert - start) / 2) < 1e-5
    assert facts_of("slerp", vectors, space="task_vectors")["linear"]
    update = update_of("slerp", vectors)
    assert distance(update, slerp(expert, start, 0.5, 0.9995) - start) < 1e-5
    assert distance(update_of("multislerp", vectors), (expert - start) / 2) < 1e-5
    update = update_of("karcher", vectors)
    assert distance(update, karcher([expert, start], [1, 1]) - start) < 1e-4  # its own tolerance


def test_directions_that_cancel():
    step, other = torch.randn(2, 30, generator=torch.Generator().manual_seed(1))
    zero = torch.zeros(30)
    pair = TaskVectors(zero, [step, -3 * step])
    assert distance(update_of("multislerp", pair), -step.double().numpy()) < 1e-6
    assert "directions cancel" in facts_of("multislerp", pair)["warning"]
    pairs = TaskVectors(zero, [step, -3 * step, other, -other])
    assert not update_of("multislerp", pairs).any()
    assert facts_of("slerp", pair, space="task_vectors")["linear"]
    assert "opposite to the Karcher mean" in facts_of("karcher", pair)["warning"]


def test_slerp_of_three_is_refused():
    vectors, _, _ = family(*SHAPES["tall"], 3, 0.1)
    with pytest.raises(Refusal, match="two experts, not 3"):
        methods.get("slerp").load()(vectors)


def test_a_recipe_or_study_of_slerp_has_two_experts_in_their_order(tiny, tmp_path, monkeypatch):
    recipe = Recipe(base=str(tiny.base), experts=tuple(map(str, tiny.experts)), method="slerp")
    with pytest.raises(Refusal, match="recipe: slerp merges two experts, not 3"):
        merge(recipe, tmp_path / "merged", progress=False)
    monkeypatch.chdir(tmp_path)
    path = make_study(tmp_path, ["llama"], sizes=[2, 3], methods=["slerp"])
    with pytest.raises(
        Refusal, match=r"methods\[0\]: slerp merges two experts; write sizes: \[2\]"
    ):
        load_study(path)
    path = make_study(
        tmp_path, ["llama"], sizes=[2, 3], methods=[{"method": "slerp", "sizes": [2]}]
    )
    study = load_study(path)
    merges = [m for m in list_models(study, make_lock(study)) if m.kind == "merge"]
    order = list(study.bases["llama"].experts.values())
    assert merges and all(
        order.index(m.recipe.experts[0]) < order.index(m.recipe.experts[1]) for m in merges
    )


@pytest.mark.parametrize("way", ["loops", "torch"])
@pytest.mark.parametrize("space", ["weights", "task_vectors"])
def test_inner_products_are_numpys_in_float64(way, space, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(elementwise, "_loops", lambda tensor: None)
    vectors, base, experts = family("w", (61, 83), 4, 1e-3)
    rows = np.stack([x.ravel() for x in wide(experts)])
    rows -= base.double().numpy().ravel() if space == "task_vectors" else 0
    found = angles.gram(vectors, space)
    # float32 task vectors are off by half a unit in the last place of the weights
    assert np.allclose(found, rows @ rows.T, rtol=1e-9 if space == "weights" else 1e-4)
    assert np.array_equal(found, found.T)
