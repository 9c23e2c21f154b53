"""Numbers that show whether an inference engine computes with the weights of a checkpoint.

An engine fuses weights, pads them and packs them into layouts of its own, some out of sight. So columns
of each weight matrix are read back through the engine's own kernels: a matrix times a one-hot vector is
one of its columns, exactly, in any dtype. Sums over a layer do not depend on how its matrices are fused.
Weights that a swap has left behind show in them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from wildmerge.checkpoints.heads import HEAD, is_tied
from wildmerge.checkpoints.tensors import Checkpoint

Sums = dict[str, list[float]]

COLUMNS = 4  # read of each matrix, spread evenly


class WeightProbe:
    """What vLLM's workers are extended by; `collective_rpc` calls it."""

    def wildmerge_weight_sums(self: Any) -> Sums:
        """Return the sums of the weights that this worker computes with."""
        return _sum_up(_engine_parts(self.get_model()))


def checkpoint_sums(checkpoint: Checkpoint, dtype: torch.dtype) -> Sums:
    """Return the sums of a checkpoint's weights once they are cast to `dtype`."""
    return _sum_up(_checkpoint_parts(checkpoint, dtype))


def same_sums(first: Sums, second: Sums) -> bool:
    """Say whether two models' sums are equal but for the order of summation."""
    return first.keys() == second.keys() and all(
        abs(a - b) <= 1e-9 * max(first[key][2], second[key][2], 1e-30)
        for key in first
        for a, b in zip(first[key], second[key], strict=True)
    )


def _engine_parts(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the columns read of every matrix, and every other parameter as a whole."""
    head = getattr(model, "lm_head", None)
    for name, module in model.named_modules():
        method = getattr(module, "quant_method", None)
        own = dict(module.named_parameters(recurse=False))
        if hasattr(module, "num_embeddings"):
            if module is not head or "embed" in name:
                yield "embedding", own["weight"][:, _columns(own["weight"].shape[1])]
        elif hasattr(method, "apply") and hasattr(module, "input_size"):
            yield name, _through_kernel(module, module.input_size, own["weight"])
            own.pop("weight")
            yield from ((f"{name}.{key}", value) for key, value in own.items())
        else:
            yield from ((f"{name}.{key}", value) for key, value in own.items())
    if head is not None and hasattr(head, "num_embeddings"):
        yield "head", _through_kernel(head, head.weight.shape[1], head.weight)


def _through_kernel(layer: Any, inputs: int, like: torch.Tensor) -> torch.Tensor:
    """Return columns of a layer's matrix as the layer computes them, (columns, outputs)."""
    one_hot = torch.zeros((COLUMNS, inputs), dtype=like.dtype, device=like.device)
    one_hot[torch.arange(COLUMNS), _columns(inputs)] = 1
    columns: torch.Tensor = layer.quant_method.apply(layer, one_hot, None)
    return columns


def _checkpoint_parts(
    checkpoint: Checkpoint, dtype: torch.dtype
) -> Iterator[tuple[str, torch.Tensor]]:
    tied = is_tied(checkpoint)
    for name, info in checkpoint.tensors.items():
        if name == HEAD and tied:
            continue  # stored, but the embedding is used
        tensor = checkpoint[name]
        if len(info.shape) == 2:  # noqa: PLR2004 - a matrix
            tensor = tensor[:, _columns(info.shape[1])]
        tensor = tensor.to(dtype)
        if "embed_tokens" in name:
            yield "embedding", tensor
            if tied:
                yield "head", tensor
        else:
            yield "head" if name == HEAD else name, tensor


def _columns(count: int) -> torch.Tensor:
    return torch.linspace(0, count - 1, COLUMNS).long()


def _sum_up(parts: Iterator[tuple[str, torch.Tensor]]) -> Sums:
    """Return sum, sum of squares and sum of magnitudes of each layer, in float64."""
    sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for name, tensor in parts:
        values = tensor.detach().double()
        layer = re.search(r"layers\.(\d+)\.", name)
        key = layer[0] if layer else name if name in ("embedding", "head") else "rest"
        for index, value in enumerate((values.sum(), values.square().sum(), values.abs().sum())):
            sums[key][index] += float(value)
    return dict(sums)
