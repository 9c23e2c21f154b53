"""The geometry of experts: against numpy and torch's SVD on whole matrices, in float64."""

import itertools
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wild import changed
from wildmerge.checkpoints.roles import kind_of, layer_of, role_of
from wildmerge.errors import Refusal
from wildmerge.merging import geometry as module
from wildmerge.merging.geometry import chosen, geometry
from wildmerge.merging.inspection import inspect
from wildmerge.vectors import linalg, subspaces
from wildmerge.vectors.comparing import compare
from wildmerge.vectors.task_vectors import TaskVectors

NAMES = ["one", "two", "three"]


@pytest.fixture(scope="module")
def measured(tiny):
    """Rows of the tiny family by (measure, expert, other, part)."""
    return by_key(geometry(tiny.base, dict(zip(NAMES, tiny.experts, strict=True))))


def by_key(rows):
    keys = ("measure", "expert", "other", "part")
    found = {tuple(row[key] for key in keys): row for row in rows}
    assert len(found) == len(rows)
    return found


def whole(tiny):
    """Base and task vectors, name -> float64 arrays."""
    base = {n: t.double().numpy() for n, t in load_file(tiny.base / "model.safetensors").items()}
    experts = [load_file(folder / "model.safetensors") for folder in tiny.experts]
    deltas = [{n: e[n].double().numpy() - w for n, w in base.items()} for e in experts]
    return base, deltas


def joined(tensors, part):
    names = sorted(name for name in tensors if part in ("all", layer_part(name), kind_part(name)))
    return np.concatenate([tensors[name].ravel() for name in names])


def layer_part(name):
    return "layer " + name.split(".")[2] if ".layers." in name else ""


def kind_part(name):
    words = {"norm": "norm", "attn": "attention", "mlp": "mlp", "embed": "embedding"}
    return "kind " + next(kind for word, kind in words.items() if word in name)


@pytest.mark.parametrize("part", ["all", "layer 1", "kind attention", "kind mlp", "kind norm"])
def test_norms_cosines_and_signs_are_those_of_all_weights(part, tiny, measured):
    base, deltas = whole(tiny)
    w, *d = (joined(tensors, part) for tensors in (base, *deltas))
    value = {key[:3]: row["number"] for key, row in measured.items() if key[3] == part}
    near = {"rel": 1e-12, "abs": 1e-14}
    assert value["base_norm", "", ""] == pytest.approx(np.linalg.norm(w), **near)
    for name, own in zip(NAMES, d, strict=True):
        assert value["norm", name, ""] == pytest.approx(np.linalg.norm(own), **near)
        relative = np.linalg.norm(own) / np.linalg.norm(w)
        assert value["relative_norm", name, ""] == pytest.approx(relative, **near)
    for i, k in itertools.combinations(range(3), 2):
        pair = NAMES[k], NAMES[i]
        cosine = d[i] @ d[k] / np.linalg.norm(d[i]) / np.linalg.norm(d[k])
        assert value["cosine", *pair] == pytest.approx(cosine, **near)
        share, by_size = conflict(np.stack([d[i], d[k]]))
        assert value["sign_conflict", *pair] == pytest.approx(share, **near)
        assert value["sign_conflict_by_size", *pair] == pytest.approx(by_size, **near)
    share, by_size = conflict(np.stack(d))
    assert value["sign_conflict", "", ""] == pytest.approx(share, **near)
    assert value["sign_conflict_by_size", "", ""] == pytest.approx(by_size, **near)
    on = {row["measured_on"] for key, row in measured.items() if key[3] == part}
    assert f"all {len(w):,} weights" in on


def conflict(deltas):
    """Share of the weights moved by several experts whose signs are not all one."""
    moved = deltas[:, (deltas != 0).sum(0) > 1]
    differ = np.array([len(set(np.sign(c[c != 0]))) > 1 for c in moved.T], bool)
    size = np.abs(moved).sum(0)
    return differ.mean(), size[differ].sum() / size.sum()


@pytest.mark.parametrize("part", ["all", "layer 0", "kind attention"])
def test_ranks_and_subspaces_are_those_of_a_full_svd(part, tiny, measured):
    _, deltas = whole(tiny)
    names = [n for n in deltas[0] if deltas[0][n].ndim == 2 and "embed" not in n]
    names = [n for n in names if part in ("all", layer_part(n), kind_part(n))]
    value = {key[:3]: row["number"] for key, row in measured.items() if key[3] == part}
    parts = {
        name: [torch.linalg.svd(torch.from_numpy(d[name]), full_matrices=False) for d in deltas]
        for name in names
    }
    for index, expert in enumerate(NAMES):
        ranks = []
        for found in parts.values():
            share = (found[index].S / found[index].S.sum()).numpy()
            ranks.append(math.exp(-(share * np.log(share)).sum()))
        assert value["effective_rank", expert, ""] == pytest.approx(np.mean(ranks), rel=1e-9)
    for i, k in itertools.combinations(range(3), 2):
        left, right = [], []
        for found in parts.values():
            r = min(found[i].S.shape[0] // 4, 16)
            angles = torch.linalg.svdvals(found[i].U[:, :r].T @ found[k].U[:, :r])
            left.append(float(angles.square().mean()))
            angles = torch.linalg.svdvals(found[i].Vh[:r] @ found[k].Vh[:r].T)
            right.append(float(angles.square().mean()))
        pair = NAMES[k], NAMES[i]
        assert value["left_overlap", *pair] == pytest.approx(np.mean(left), rel=1e-6)
        assert value["right_overlap", *pair] == pytest.approx(np.mean(right), rel=1e-6)
    full = np.mean([min(deltas[0][name].shape) for name in names])
    assert value["full_rank", "", ""] == full
    on = measured["full_rank", "", "", part]["measured_on"]
    assert on == f"{len(names)} of {len(names)} matrices"


def test_a_low_rank_expert_is_seen_as_one(tiny_qwen3, tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"

    def by_three(seed):
        def add(tensors):
            generator = torch.Generator().manual_seed(seed)
            rows, columns = tensors[name].shape
            a = torch.randn(rows, 3, generator=generator)
            tensors[name] += 0.01 * a @ torch.randn(3, columns, generator=generator)

        return add

    folders = {str(s): changed(tiny_qwen3.base, tmp_path / str(s), by_three(s)) for s in (1, 2)}
    found = by_key(geometry(tiny_qwen3.base, folders | {"base": tiny_qwen3.base}))
    part = "layer 1"
    matrices = int(found["full_rank", "", "", part]["measured_on"].split()[0])
    assert found["numerical_rank", "1", "", part]["number"] * matrices == 3
    assert 2 < found["effective_rank", "2", "", part]["number"] * matrices < 3.01
    # one matrix only is moved by both: the overlap is of it, and of three directions
    deltas = [load_file(f / "model.safetensors")[name].double() for f in folders.values()]
    start = load_file(tiny_qwen3.base / "model.safetensors")[name].double()
    u = [torch.linalg.svd(delta - start).U[:, :3] for delta in deltas]
    expected = float((u[0].T @ u[1]).square().sum()) / 3
    assert found["left_overlap", "2", "1", part]["number"] == pytest.approx(expected, abs=1e-4)
    for measure in ("cosine", "left_overlap", "sign_conflict"):  # with the base itself
        assert math.isnan(found[measure, "base", "1", "all"]["number"])
    assert found["effective_rank", "base", "", "all"]["number"] == 0


def test_numbers_depend_on_no_thread_and_no_chunk(tiny):
    experts = dict(zip(NAMES, tiny.experts, strict=True))
    assert repr(geometry(tiny.base, experts)) == repr(geometry(tiny.base, experts, threads=2))
    generator = torch.Generator().manual_seed(0)
    base, *rest = (torch.randn(5000, generator=generator) for _ in range(4))
    sums = [compare(TaskVectors(base, rest, chunk=chunk)) for chunk in (512, 1024, 1 << 20)]
    for other in sums[1:]:
        for name, value in vars(sums[0]).items():
            assert np.array_equal(value, getattr(other, name)), name


def test_inspection_prints_the_same_cosines(tiny, measured):
    found = inspect(tiny.base, dict(zip(NAMES, tiny.experts, strict=True)))
    for pair in found.pairs():
        assert measured["cosine", pair["expert"], pair["other"], "all"]["number"] == pair["cosine"]


def test_large_models_are_decomposed_in_some_evenly_spaced_layers(monkeypatch):
    shapes = {f"model.layers.{i}.mlp.up_proj.weight": (64, 32) for i in range(32)}
    assert chosen(shapes, 6) == set(shapes)
    one = 6 * subspaces.work((64, 32))
    for budget, layers in [(5.5, {0, 8, 16, 23, 31}), (1, {0}), (0.1, {0})]:
        monkeypatch.setattr(module, "WORK", budget * one)
        assert {layer_of(name) for name in chosen(shapes, 6)} == layers


def test_a_sample_of_matrices_says_so(tiny, monkeypatch):
    monkeypatch.setattr(module, "WORK", 1.0)
    found = by_key(geometry(tiny.base, dict(zip(NAMES, tiny.experts, strict=True))))
    assert found["effective_rank", "one", "", "all"]["measured_on"] == "7 of 14 matrices"
    assert ("effective_rank", "one", "", "layer 1") not in found
    assert found["cosine", "two", "one", "layer 1"]["measured_on"].startswith("all ")


def test_one_expert_has_no_pairs_and_nan_is_refused_by_name(tiny, tmp_path):
    (alone,) = {row["expert"] for row in geometry(tiny.base, {"one": tiny.experts[0]})} - {""}
    assert alone == "one"

    def poison(tensors):
        tensors["model.norm.weight"][3] = float("nan")

    bad = changed(tiny.experts[0], tmp_path / "bad", poison)
    with pytest.raises(Refusal, match="bad: tensor model.norm.weight holds NaN or Inf"):
        geometry(tiny.base, {"bad": bad, "one": tiny.experts[1]}, threads=2)


def test_effective_rank_counts_equal_directions():
    assert linalg.effective_rank(torch.full((7,), 0.3)) == pytest.approx(7)
    assert linalg.effective_rank(torch.tensor([2.0, 0.0, 0.0])) == pytest.approx(1)
    assert linalg.effective_rank(torch.zeros(3)) == 0


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("model.layers.3.self_attn.q_norm.weight", "norm", 3),
        ("model.layers.11.self_attn.o_proj.weight", "attention", 11),
        ("transformer.h.0.ln_1.weight", "norm", 0),
        ("transformer.ln_f.bias", "norm", None),
        ("transformer.h.5.mlp.c_fc.weight", "mlp", 5),
        ("model.layers.2.block_sparse_moe.experts.7.w1.weight", "mlp", 2),
        ("model.decoder.layers.4.fc1.weight", "mlp", 4),
        ("gpt_neox.layers.1.attention.dense.weight", "attention", 1),
        ("model.embed_tokens.weight", "embedding", None),
        ("lm_head.weight", "head", None),
        ("model.layers.0.conv.weight", "other", 0),
    ],
)
def test_kinds_and_layers_by_name(name, kind, layer):
    assert kind_of(name, role_of(name, (4, 4))) == kind
    assert layer_of(name) == layer
