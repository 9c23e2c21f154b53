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
