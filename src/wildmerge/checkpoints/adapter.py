"""LoRA adapters, read as the experts that they make of their base.

An adapter stores, for some weights W, two thin factors: the expert's weight is W + scale * B A. Here
it looks like any other checkpoint: a tensor is composed, in float32, when it is asked for. `compose`
decides from names, shapes and adapter_config.json alone, without torch.

Source: Hu et al. 2021, arXiv 2106.09685; rank-stabilised scale: Kalajdzievski 2023, arXiv 2312.03732.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.checkpoints.headers import Headers, TensorInfo
from wildmerge.checkpoints.roles import embedding_of, role_of
from wildmerge.checkpoints.tensors import Checkpoint, View
from wildmerge.errors import Refusal

if TYPE_CHECKING:
    from torch import Tensor

    from wildmerge.checkpoints.stored import StoredTensor

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.(lora(?:_embedding)?_[AB])(?:\.default)?(?:\.weight)?")
_COPY = re.compile(r"(.+?)(?:\.base_layer|\.modules_to_save(?:\.default)?)?\.(weight|bias)")
_OTHER_KINDS = {
    "use_dora": "DoRA",
    "use_qalora": "QALoRA",
    "use_bdlora": "BD-LoRA",
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
    "lora_bias": "LoRA with lora_bias",
    "target_parameters": "LoRA with target_parameters",
    "trainable_token_indices": "LoRA with trainable_token_indices",
    "layer_replication": "LoRA with layer_replication",
}
_KEEPS_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
"""Values of init_lora_weights under which training starts from the base's own weights."""


@dataclass(frozen=True)
class Patch:
    """What an adapter adds to one tensor of the base: scale * B A, by the names of A and B."""

    source: str
    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Composition:
    """The expert that base and adapter make: its tensors, and how those that differ are made."""

    tensors: dict[str, TensorInfo]
    patches: dict[str, Patch]
    copies: dict[str, str]


class Adapted(View):
    """A base as its adapter changes it; `changed` names the tensors that it does.

    Args:
        weights: the adapter's own tensors; its config is adapter_config.json.
        base: the checkpoint that it is applied to, whose configuration it has.

    Raises:
        Refusal: another kind of adapter than LoRA, or an adapter of another base.
    """

    def __init__(self, weights: Checkpoint, base: Checkpoint) -> None:
        made = compose(weights, base)
        sources: dict[str, tuple[Checkpoint, str]] = {name: (base, name) for name in base.tensors}
        sources |= {name: (weights, key) for name, key in made.copies.items()}
        super().__init__(weights.folder, base.config, made.tensors, sources)
        self._weights, self._patches = weights, made.patches
        self.changed = sorted({*made.patches, *made.copies})

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor of the expert: float32 where the adapter adds to it, else as stored."""
        if name not in self._patches:
            return super().__getitem__(name)
        patch = self._patches[name]
        a, b = self._weights[patch.a].float(), self._weights[patch.b].float()
        left, right = (a.T, b.T) if patch.transposed else (b, a)
        return super().__getitem__(patch.source).float().addmm(left, right, alpha=patch.scale)

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return the same, read slice by slice where the adapter adds nothing to it."""
        return self[name] if name in self._patches else super().stored(name)


def is_adapter(config: Mapping[str, Any]) -> bool:
    """Return whether a config is an adapter's, not a whole model's."""
    return "peft_type" in config


def compose(adapter: Headers, base: Headers) -> Composition:
    """Match an adapter's tensors with its base's.

    Args:
        adapter: its own tensors; its config is adapter_config.json.
        base: the base.

    Raises:
        Refusal: another kind of adapter than LoRA, or an adapter of another base.
    """
    where, config, stored = adapter.folder, adapter.config, adapter.tensors
    _require_lora(where, config)
    factors: dict[str, dict[str, str]] = {}
    copies: dict[str, str] = {}
    for key in stored:
        name = key.removeprefix(_PREFIX)
        if match := _FACTOR.fullmatch(name):
            factors.setdefault(match[1], {})[match[2][-1]] = key
        elif (match := _COPY.fullmatch(name)) and "lora_" not in name:
            copies[_target(where, match[1], match[2], base.tensors)] = key
        else:
            raise Refusal(f"{where}: tensor {key} is not LoRA's; merge the adapter with PEFT first")
    if not factors and not copies:
        raise Refusal(f"{where}: the adapter holds no tensors; fetch it again")
    tensors = dict(base.tensors) | {name: stored[key] for name, key in copies.items()}
    patches = {}
    for module, pair in factors.items():
        target = _target(where, module, "weight", base.tensors)
        patches[target] = _patch(where, config, module, target, pair, stored, tensors)
    made = {name: tensors[patch.source] for name, patch in patches.items()}
    return Composition(tensors | made, patches, copies)


def _require_lora(where: Path | str, config: Mapping[str, Any]) -> None:
    """Refuse adapters whose expert is not base + scale * B A."""
    kind = config.get("peft_type")
    if kind == "LORA":
        kind = next((name for key, name in _OTHER_KINDS.items() if config.get(key)), kind)
        start = config.get("init_lora_weights", True)
        if start not in _KEEPS_BASE:
            kind = f"LoRA with init_lora_weights '{start}', which changes the base's weights,"
    if kind != "LORA":
        raise Refusal(
            f"{where}: a {kind} adapter is not supported, LoRA is; merge it into its base with "
            "PEFT's merge_and_unload and give the result"
        )


def _target(where: Path | str, module: str, part: str, tensors: Mapping[str, TensorInfo]) -> str:
    """Return the base's name for a module's tensor: its files may leave the first part out."""
    for name in (f"{module}.{part}", f"{module}.{part}".partition(".")[2]):
        # a tied base has no tensor of its head; the adapter then gives the expert one
        if name in tensors or role_of(name, ()) == "head":
            return name
    raise Refusal(
        f"{where}: the adapter changes {module}.{part}, which the base does not have; not an adapter "
        "of this base"
    )


def _patch(  # noqa: PLR0917 - what a message and a check need
    where: Path | str,
    config: Mapping[str, Any],
    module: str,
    target: str,
    pair: Mapping[str, str],
    stored: Mapping[str, TensorInfo],
    tensors: Mapping[str, TensorInfo],
) -> Patch:
    if set(pair) != {"A", "B"}:
        raise Refusal(f"{where}: {module} lacks lora_A or lora_B; fetch the adapter again")
    source = target if target in tensors else embedding_of(tensors)
    assert source is not None, "a checkpoint has an embedding"
    on_embedding = "lora_embedding_" in pair["A"]
    transposed = on_embedding or bool(config.get("fan_in_fan_out"))
    a, b, shape = stored[pair["A"]].shape, stored[pair["B"]].shape, tensors[source].shape
    product = (*b[:1], *a[1:])
    if (product[::-1] if transposed else product) != shape or a[:1] != b[1:]:
        raise Refusal(
            f"{where}: the adapter's factors for {module}, {list(b)} and {list(a)}, do not fit the "
            f"base's {list(shape)}; not an adapter of this base"
        )
    try:
        rank, alpha = _setting(config, "r", module), _setting(config, "lora_alpha", module)
    except (TypeError, ValueError, AttributeError, re.error):
        raise Refusal(
            f"{where}: no usable r and lora_alpha for {module} in adapter_config.json; fetch it again"
        ) from None
    if rank != a[0] or not rank:
        raise Refusal(
            f"{where}: adapter_config.json gives {module} rank {rank:g}, its factors have {a[0]}; "
            "fetch the adapter again"
        )
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return Patch(source, pair["A"], pair["B"], scale, transposed)


def _setting(config: Mapping[str, Any], key: str, module: str) -> float:
    """Return r or lora_alpha of a module: the first pattern that its name ends with, else for all."""
    patterns = config.get({"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[key]) or {}
    fitting = (value for p, value in patterns.items() if re.match(rf"(.*\.)?({p})$", module))
    return float(next(fitting, config.get(key, 8)))
