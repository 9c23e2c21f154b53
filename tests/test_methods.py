"""Every method agrees with an independent float64 implementation of its formula."""

import numpy as np
import pytest
import torch

import oracles
import oracles_random
from wildmerge.methods import catalogue as methods
from wildmerge.vectors import elementwise
from wildmerge.vectors.task_vectors import TaskVectors

SHAPES = {
    "tall": ("layers.0.mlp.up_proj.weight", (48, 20)),
    "wide": ("layers.0.mlp.down_proj.weight", (20, 48)),
    "square": ("layers.0.self_attn.q_proj.weight", (32, 32)),
    "vector": ("layers.0.input_layernorm.weight", (37,)),
    "embedding": ("model.embed_tokens.weight", (64, 16)),
    "head": ("lm_head.weight", (64, 16)),
}
MATRIX_METHODS = {
    "tsv_m": 1e-4,
    "iso_c": 1e-5,
    "iso_cts": 1e-4,
    "task_arithmetic_sb": 1e-5,
    "ties_sb": 1e-5,
    "wudi": 1e-5,
    "task_arithmetic_svc": 1e-5,
    "ties_svc": 1e-5,
}
MEAN_ELSEWHERE = {"tsv_m", "iso_c", "iso_cts", "wudi"}
"""Methods that give tensors other than matrices the mean of the task vectors."""
METHODS = sorted(methods.discover().keys() - {"slerp", "karcher"})
"""Those that need nothing but task vectors; for the others see test_averages."""
DROPPING = sorted(name for name, method in methods.discover().items() if method.takes_null_space)


def task_vectors(name, shape, n, seed=0, storage=torch.float32):
    """Return random experts of a random base as the product sees them, and their float64 deltas."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(shape, generator=generator, dtype=torch.float64).to(storage)
    steps = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(n)]
    experts = [(base.double() + 0.1 * step).to(storage) for step in steps]
    # float32 differences are what all methods start from
    deltas = [(e.float() - base.float()).double().numpy() for e in experts]
    return TaskVectors(base, experts, name=name, chunk=100), np.stack(deltas)


def update_of(method, vectors, **parameters):
    result = methods.get(method).load()(vectors, **parameters)
    update = result[0] if isinstance(result, tuple) else result
    return (update if isinstance(update, torch.Tensor) else vectors.materialise(update)).double()


def facts_of(method, vectors, **parameters):
    return methods.get(method).load()(vectors, **parameters)[1]


def distance(ours, theirs):
    scale = np.linalg.norm(theirs)
    return np.linalg.norm(ours.numpy() - theirs) / (scale if scale else 1.0)


def expected(method, deltas, role, tensor=SHAPES["tall"][0]):
    if hasattr(oracles_random, method):
        return getattr(oracles_random, method)(deltas, tensor)
    if role != "matrix":
        inner = method.removesuffix("_sb").removesuffix("_svc")
        plain = "task_arithmetic" if method in MEAN_ELSEWHERE else inner
        return getattr(oracles, plain)(deltas)
    if method.endswith("_sb"):
        return oracles.boost(getattr(oracles, method.removesuffix("_sb"))(deltas), 0.2)
    if method.endswith("_svc"):
        return oracles.calibrate(getattr(oracles, method.removesuffix("_svc"))(deltas), deltas)
    return getattr(oracles, method)(deltas)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_follows_its_formula(method, shape, n):
    vectors, deltas = task_vectors(*SHAPES[shape], n)
    update = update_of(method, vectors)
    assert distance(
        update, expected(method, deltas, vectors.role, vectors.name)
    ) < MATRIX_METHODS.get(method, 1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", ["tall", "vector"])
def test_experts_that_did_not_move_leave_the_base(method, shape):
    name, size = SHAPES[shape]
    base = torch.randn(size)
    vectors = TaskVectors(base, [base.clone(), base.clone()], name=name)
    assert torch.equal(update_of(method, vectors), torch.zeros(size, dtype=torch.float64))


@pytest.mark.parametrize("method", METHODS)
def test_one_expert_that_did_not_move_is_well_defined(method):
    """A zero task vector among others; null space dropped where rank would be deficient."""
    name, size = SHAPES["tall"]
    generator = torch.Generator().manual_seed(4)
    base = torch.randn(size, generator=generator)
    experts = [base + 0.1 * torch.randn(size, generator=generator), base.clone()]
    vectors = TaskVectors(base, experts, name=name)
    deltas = np.stack([(e - base).double().numpy() for e in experts])
    dropping = {"null_space": "drop"} if method in DROPPING else {}
    eps = torch.finfo(torch.float32).eps
    if method in DROPPING and method in MEAN_ELSEWHERE:
        target = getattr(oracles, method)(deltas, drop_eps=eps)
    elif method.endswith("_sb"):
        inner = getattr(oracles, method.removesuffix("_sb"))(deltas)
        target = oracles.boost(inner, 0.2, drop_eps=eps)
    else:
        target = expected(method, deltas, "matrix")
    update = update_of(method, vectors, **dropping)
    assert distance(update, target) < MATRIX_METHODS.get(method, 1e-5)


@pytest.mark.parametrize(
    ("parameters", "oracle"),
    [
        ({"scale": "sum"}, {"scale": "sum"}),
        ({"lambda_": 0.3}, {"lam": 0.3}),
        ({"weights": [1.0, 2.0, 0.5]}, {"weights": [1.0, 2.0, 0.5]}),
        ({"weights": [1.0, 2.0, 0.5], "scale": "sum"}, {"weights": [1, 2, 0.5], "scale": "sum"}),
    ],
)
def test_task_arithmetic_options(parameters, oracle):
    vectors, deltas = task_vectors(*SHAPES["wide"], 3)
    update = update_of("task_arithmetic", vectors, **parameters)
    assert distance(update, oracles.task_arithmetic(deltas, **oracle)) < 1e-5


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("divisor", ["agreeing", "n", "sum"])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_ties_options(density, divisor, weights):
    vectors, deltas = task_vectors(*SHAPES["tall"], 3)
    update = update_of(
        "ties", vectors, density=density, divisor=divisor, weights=weights, lambda_=0.7
    )
    target = oracles.ties(deltas, density, divisor, 0.7, weights)
    assert distance(update, target) < 1e-5


def test_ties_keeps_exactly_k_by_lowest_index_among_equal_magnitudes():
    generator = torch.Generator().manual_seed(3)
    magnitudes = torch.randint(1, 4, (40, 30), generator=generator) / 4
    signs = torch.randint(0, 2, (40, 30), generator=generator) * 2 - 1
    base = torch.zeros(40, 30)
    for density in (0.1, 0.35, 0.77):
        vectors = TaskVectors(base, [magnitudes * signs], chunk=64)
        update = update_of("ties", vectors, density=density)
        assert int((update != 0).sum()) == int(density * 1200)
        target = oracles.trim((magnitudes * signs).double().numpy(), density)
        assert np.array_equal(update.numpy(), target)


def test_ties_elects_plus_when_the_experts_cancel():
    base = torch.zeros(4)
    vectors = TaskVectors(base, [torch.tensor([1.0, 2, 3, 4]), torch.tensor([-1.0, -2, 3, 4])])
    assert update_of("ties", vectors, density=1.0).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("shape", ["tall", "square", "vector"])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_model_stock_reports_its_t(shape, n):
    vectors, deltas = task_vectors(*SHAPES[shape], n)
    assert facts_of("model_stock", vectors)["t"] == pytest.approx(
        oracles.model_stock_t(deltas), rel=1e-6
    )


def test_model_stock_by_rows():
    vectors, deltas = task_vectors(*SHAPES["tall"], 3)
    update = update_of("model_stock", vectors, filter_wise=True)
    target = np.stack([oracles.model_stock(deltas[:, row]) for row in range(deltas.shape[1])])
    assert distance(update, target) < 1e-5


def test_model_stock_of_opposite_experts_returns_the_base():
    step = torch.randn(30)
    vectors = TaskVectors(torch.zeros(30), [step, -step])
    assert not update_of("model_stock", vectors).any()
    assert facts_of("model_stock", vectors)["t_unusual"]


def test_model_stock_norm_floor_returns_barely_moved_tensors_to_the_base():
    base = torch.zeros(8, 8)
    vectors = TaskVectors(base, [torch.full((8, 8), 1e-5), torch.full((8, 8), 1e-5)])
    assert facts_of("model_stock", vectors)["t"] == pytest.approx(1.0)
    assert facts_of("model_stock", vectors, norm_floor=1e-6)["t"] < 0.02


@pytest.mark.parametrize("beta", [0.0, 0.2, 0.5, 1.0])
def test_boosting_thresholds(beta):
    vectors, deltas = task_vectors(*SHAPES["wide"], 3)
    update = update_of("task_arithmetic_sb", vectors, beta=beta)
    assert distance(update, oracles.boost(oracles.task_arithmetic(deltas), beta)) < 1e-5


def low_rank_experts(shape, ranks, seed=0):
    """Experts as merged adapters leave them: a float32 base of zeros plus products of thin factors."""
    generator = torch.Generator().manual_seed(seed)
    experts = []
    for rank in ranks:
        left = torch.randn(shape[0], rank, generator=generator, dtype=torch.float64)
        right = torch.randn(rank, shape[1], generator=generator, dtype=torch.float64)
        experts.append((left @ right).float())
    base = torch.zeros(shape)
    return TaskVectors(base, experts, name=SHAPES["tall"][0]), np.stack(
        [e.double().numpy() for e in experts]
    )


@pytest.mark.parametrize("method", DROPPING)
@pytest.mark.parametrize("shape", [(60, 40), (40, 60), (48, 48)])
def test_low_rank_experts_under_drop(method, shape):
    if method == "ties_sb":
        pytest.skip("trimming makes the update full rank again")
    vectors, deltas = low_rank_experts(shape, (3, 5, 4))
    eps = torch.finfo(torch.float32).eps
    if method == "task_arithmetic_sb":
        target = oracles.boost(oracles.task_arithmetic(deltas), 0.2, drop_eps=eps)
    else:
        target = getattr(oracles, method)(deltas, drop_eps=eps)
    update = update_of(method, vectors, null_space="drop")
    assert distance(update, target) < MATRIX_METHODS[method]
    assert facts_of(method, vectors, null_space="drop")["rank"] == 12
    assert facts_of(method, vectors, null_space="drop")["outside_share"] == pytest.approx(
        0, abs=1e-9
    )


@pytest.mark.parametrize("method", ["iso_c", "task_arithmetic_sb", "tsv_m"])
def test_null_space_energy_is_reported_under_keep(method):
    vectors, _ = low_rank_experts((60, 40), (3, 5, 4))
    facts = facts_of(method, vectors, null_space="keep")
    assert facts["rank"] == 12
    if method == "iso_c":
        assert facts["outside_share"] == pytest.approx(28 / 40)
    assert 0 <= facts["outside_share"] <= 1


@pytest.mark.parametrize("method", DROPPING)
@pytest.mark.parametrize("shape", [(48, 21), (21, 48), (30, 30)])
def test_duplicate_experts_are_well_defined_under_drop(method, shape):
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randn(shape, generator=generator) for _ in range(2))
    vectors = TaskVectors(torch.zeros(shape), [one, one, other], name=SHAPES["tall"][0])
    deltas = np.stack([d.double().numpy() for d in (one, one, other)])
    eps = torch.finfo(torch.float32).eps
    if method in {"tsv_m", "iso_cts"}:
        target = getattr(oracles, method)(deltas, drop_eps=eps)
    else:
        target = expected(method, deltas, "matrix")
    assert distance(update_of(method, vectors, null_space="drop"), target) < MATRIX_METHODS[method]


def test_rank_of_a_bfloat16_adapter_is_told_apart_from_rounding():
    """Two rank-3 steps stored in bfloat16 are full rank by rounding; the report sees six directions."""
    generator = torch.Generator().manual_seed(2)
    base = (0.02 * torch.randn(256, 192, generator=generator)).bfloat16()
    experts = []
    for _ in range(2):
        step = torch.randn(256, 3, generator=generator) @ torch.randn(3, 192, generator=generator)
        experts.append((base.float() + 0.002 * step).bfloat16())
    vectors = TaskVectors(base, experts, name=SHAPES["tall"][0])
    assert int(torch.linalg.matrix_rank(vectors[0].double())) == 192
    assert facts_of("iso_c", vectors)["rank"] == 6


@pytest.mark.parametrize("shape", [(48, 80), (30, 129), (2000,)])
@pytest.mark.parametrize("method", METHODS)
def test_bytes_depend_neither_on_chunks_nor_on_the_order_of_tensors(method, shape):
    generator = torch.Generator().manual_seed(5)
    tensors = []
    for name in ("layers.0.mlp.up_proj.weight", "layers.1.mlp.up_proj.weight"):
        base = torch.randn(shape, generator=generator)
        moved = [base + 0.1 * torch.randn(shape, generator=generator) for _ in range(4)]
        tensors.append((base, moved, name))

    def merged(order, chunk):
        found = {
            name: update_of(method, TaskVectors(base, experts, name=name, chunk=chunk))
            for base, experts, name in order
        }
        return [found[name] for name in sorted(found)]

    first = merged(tensors, 512)
    for order, chunk in ((tensors, 1024), (tensors[::-1], 1 << 20)):
        assert all(map(torch.equal, first, merged(order, chunk)))


@pytest.mark.parametrize("method", METHODS)
def test_what_a_gpu_runs_in_place_of_compiled_loops_gives_the_same(method, monkeypatch):
    updates = []
    for way in ("loops", "torch"):
        if way == "torch":
            monkeypatch.setattr(elementwise, "_loops", lambda tensor: None)
        vectors, _ = task_vectors(*SHAPES["tall"], 3)
        updates.append(update_of(method, vectors))
    assert distance(updates[0], updates[1].numpy()) < 1e-6
