"""Weights that no fine-tuning leaves behind are refused; what looks odd and is sound passes."""

import pytest
import torch

from wild import EMBEDDING, LAYER, changed, mean_of, merged, refusal, weights
from wildmerge.merging.inspection import inspect


def zero(*parts):
    def change(tensors):
        for name, tensor in tensors.items():
            if any(part in name for part in parts):
                tensor.zero_()

    return change


@pytest.mark.parametrize("parts", [("",), ("layers.1.",), (LAYER,), (EMBEDDING,), ("norm",)])
def test_tensors_of_zeros_are_refused(parts, tiny, tmp_path):
    broken = changed(tiny.experts[0], tmp_path / "broken", zero(*parts))
    message = refusal(mean_of(tiny, broken, tiny.experts[1]), tmp_path / "out")
    assert str(broken) in message and "holds zeros where the base has weights" in message
    assert inspect(tiny.base, {"broken": broken}).rows[0]["merges"] == "no"


@pytest.mark.parametrize("at", [slice(0, 16), slice(700, 800), slice(-16, None)])
def test_a_tensor_that_is_partly_zero_is_refused(at, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("wildmerge.checkpoints.weight_checks._BLOCK", 16)

    def cut(tensors):
        tensors[LAYER].view(-1)[at] = 0

    broken = changed(tiny.experts[0], tmp_path / "broken", cut)
    assert f"tensor {LAYER} holds zeros" in refusal(mean_of(tiny, broken), tmp_path / "out")


def test_zeros_of_single_tokens_and_of_the_base_are_sound(tiny, tmp_path):
    def unused(tensors):
        tensors[EMBEDDING][:4] = tensors[EMBEDDING][-4:] = 0

    expert = changed(tiny.experts[0], tmp_path / "expert", unused)
    base = changed(tiny.base, tmp_path / "base", zero("norm"))
    merged(mean_of(tiny, expert, base=str(tiny.base)), tmp_path / "rows")
    merged(mean_of(tiny, tiny.experts[0], base=str(base)), tmp_path / "norms")


def test_experts_that_cancel_or_equal_the_base_are_sound(tiny, tmp_path):
    start = weights(tiny.base)

    def mirror(tensors):
        for name, tensor in tensors.items():
            tensors[name] = (2 * start[name].float() - tensor.float()).to(tensor.dtype)

    other = changed(tiny.experts[0], tmp_path / "other", mirror)
    merged(mean_of(tiny, tiny.experts[0], other), tmp_path / "cancel")
    ours, _ = merged(mean_of(tiny, tiny.base), tmp_path / "same")
    assert all(torch.equal(ours[name], start[name]) for name in start)


METHODS = ("task_arithmetic", "ties", "model_stock", "tsv_m", "iso_c", "ties_sb")
ODD = {
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 32),
    "complex": torch.tensor([1 + 2j, 3j]),
    "integers": torch.tensor([1, 2], dtype=torch.uint16),
    "one row": torch.ones(1, 7),
    "one column": torch.ones(5, 1),
    "double": torch.ones(3, 3, dtype=torch.float64),
}


@pytest.mark.parametrize("method", METHODS)
def test_odd_tensors_merge_by_every_method(method, tiny, tmp_path):
    """Weights move as the experts did, whatever their shape; what is no weight stays the base's."""

    def add(step):
        def change(tensors):
            for name, tensor in ODD.items():
                moves = tensor.is_floating_point()
                tensors[f"model.{name}"] = tensor + step if moves else tensor.clone()

        return change

    folders = (tiny.base, *tiny.experts[:2])
    base, *experts = (
        changed(folder, tmp_path / folder.name, add(step))
        for folder, step in zip(folders, (0, 1, 1), strict=True)
    )
    ours, _ = merged(mean_of(tiny, *experts, base=str(base), method=method), tmp_path / "out")
    for name, tensor in ODD.items():
        found = ours[f"model.{name}"]
        assert found.shape == tensor.shape
        if not tensor.is_floating_point():
            assert torch.equal(found, tensor)
            continue
        assert torch.isfinite(found).all()
        # all moved alike by one; TSV-M has no directions for thin matrices, which get the mean
        if method in ("task_arithmetic", "model_stock") or (method == "tsv_m" and name != "double"):
            assert torch.allclose(found.double(), tensor.double() + 1)
