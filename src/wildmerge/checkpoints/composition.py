"""What a LoRA adapter makes of its base, decided from names, shapes and configs alone, without torch.

For some weights W an adapter stores two thin factors: the expert's weight is W + scale * B A. For others
it stores the whole weight.

Source: Hu et al. 2021, arXiv 2106.09685; rank-stabilised scale: Kalajdzievski 2023, arXiv 2312.03732.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wildmerge.checkpoints.headers import Headers, TensorInfo
from wildmerge.checkpoints.heads import HEAD, is_tied
from wildmerge.checkpoints.matching import bare_name, by_bare_name
from wildmerge.checkpoints.roles import embedding_of, head_of, role_of
from wildmerge.errors import Refusal

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora(?:_embedding)?_([AB])(?:\.(?!weight)\w+)?(?:\.weight)?")
_COPY = re.compile(
    r"(.+?)(?:\.(base_layer|original_module|modules_to_save(?:\.default)?))?\.(weight|bias)"
)
_CONV1D = {"c_attn", "c_proj", "c_fc", "q_attn"}
_WITH_CONV1D = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"}
"""Modules, and the architectures of transformers, that store linear layers transposed."""
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
    """What an adapter adds to one tensor: scale * B A, by the names of A and B in the adapter."""

    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True)
class Composition:
    """The expert that base and adapter make.

    `sources` names for each tensor where its values come from before patches: a tensor of the base, or
    with True one of the adapter. `config` is the base's, untied where embedding and head became two.
    """

    tensors: dict[str, TensorInfo]
    sources: dict[str, tuple[str, bool]]
    patches: dict[str, Patch]
    config: dict[str, Any]

    @property
    def changed(self) -> list[str]:
        """Names of the tensors that the adapter changes, sorted."""
        return sorted({*self.patches, *(n for n, (_, own) in self.sources.items() if own)})


def compose(adapter: Headers, base: Headers) -> Composition:
    """Match an adapter's tensors with its base's.

    Args:
        adapter: its own tensors; its config is adapter_config.json.
        base: the base.

    Raises:
        Refusal: another kind of adapter than LoRA, or an adapter of another base.
    """
    _require_lora(adapter.folder, adapter.config)
    read = _Parts(adapter, base)
    tensors = dict(base.tensors)
    sources = {name: (name, False) for name in tensors}
    untied = False
    if read.tied and (embedding := embedding_of(base)):
        head = head_of(base) or read.head or HEAD
        untied = read.separate(
            embedding, head, tied=bool(adapter.config.get("ensure_weight_tying"))
        )
        if untied or head in tensors:
            sources[head], tensors[head] = sources[embedding], tensors[embedding]
    for name, key in (read.untrained | read.trained).items():
        sources[name], tensors[name] = (key, True), adapter.tensors[key]
    patches = {
        target: _patch(adapter, base, module, tensors[target].shape, read.factors[module])
        for module, target in read.targets.items()
    }
    config = dict(base.config) | ({"tie_word_embeddings": False} if untied else {})
    return Composition(tensors, sources, patches, config)


class _Parts:
    """The tensors of an adapter by what they are, named as the base names what they change.

    `factors` are A and B of each module, whose tensor `targets` names; `trained` are weights that
    replace the base's, and `untrained` those that the base had when it was trained, perhaps resized.
    """

    def __init__(self, adapter: Headers, base: Headers) -> None:
        self.factors: dict[str, dict[str, str]] = {}
        self.targets: dict[str, str] = {}
        self.trained: dict[str, str] = {}
        self.untrained: dict[str, str] = {}
        self.tied = is_tied(base)
        self._adapter, self._base, self._bare = adapter, base, by_bare_name(base.tensors)
        for key in adapter.tensors:
            self._add(key, key.removeprefix(_PREFIX))
        if not adapter.tensors:
            raise Refusal(f"{adapter.folder}: the adapter holds no tensors; fetch it again")

    @property
    def head(self) -> str | None:
        """The output head, where the adapter changes it."""
        names = {*self.targets.values(), *self.trained, *self.untrained}
        return next((n for n in sorted(names) if _is_head(n) and n.endswith("weight")), None)

    def separate(self, embedding: str, head: str, *, tied: bool) -> bool:
        """Return whether embedding and head, one in the base, become two; what is not trained is both's.

        `tied` says that they were trained as one: what the adapter holds of the head is left out.
        """
        if tied:
            self.targets = {m: target for m, target in self.targets.items() if target != head}
            self.trained.pop(head, None)
        pair = {embedding, head}
        untied = not tied and bool(pair & {*self.targets.values(), *self.trained})
        of_embedding, of_head = (self.untrained.pop(name, None) for name in (embedding, head))
        if shared := of_embedding or of_head:
            self.untrained[embedding] = shared
            if untied or head in self._base.tensors:
                self.untrained[head] = shared
        return untied

    def _add(self, key: str, name: str) -> None:
        if match := _FACTOR.fullmatch(name):
            module, side = match[1], match[2]
            self.targets[module] = self._target(module, "weight")
            if side in self.factors.setdefault(module, {}):
                raise Refusal(
                    f"{self._adapter.folder}: holds several adapters ({key} is one more of {module}); "
                    "save each in a folder of its own"
                )
            self.factors[module][side] = key
        elif (match := _COPY.fullmatch(name)) and "lora_" not in name:
            module, kind, part = match.groups()
            trained = (kind or "").startswith("modules") or (not kind and self._is_trained(module))
            kept = self.trained if trained else self.untrained
            target = self._target(module, part)
            if kind not in (None, "original_module") or target not in kept:
                kept[target] = key
        else:
            raise Refusal(
                f"{self._adapter.folder}: tensor {key} is not LoRA's; merge the adapter with PEFT first"
            )

    def _is_trained(self, module: str) -> bool:
        """Return whether a module is one of modules_to_save."""
        saved = self._adapter.config.get("modules_to_save") or ()
        return any(module == name or module.endswith(f".{name}") for name in saved)

    def _target(self, module: str, part: str) -> str:
        """Return the base's name of a module's tensor, whatever prefix the adapter has for it."""
        name = f"{module}.{part}"
        found = name if name in self._base.tensors else self._bare.get(bare_name(name))
        if found is None and not (self.tied and _is_head(name)):
            raise Refusal(
                f"{self._adapter.folder}: the adapter changes {name}, which the base does not have; not "
                "an adapter of this base"
            )
        return found or name  # a tied base has no tensor of its head; the adapter gives it one


def _is_head(name: str) -> bool:
    return role_of(name, ()) == "head"


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


def _patch(
    adapter: Headers, base: Headers, module: str, shape: tuple[int, ...], pair: Mapping[str, str]
) -> Patch:
    """Return what a pair of factors adds to a tensor of some shape."""
    where = adapter.folder
    if set(pair) != {"A", "B"}:
        raise Refusal(f"{where}: {module} lacks lora_A or lora_B; fetch the adapter again")
    a, b = (adapter.tensors[pair[side]].shape for side in "AB")
    transposed = "lora_embedding_" in pair["A"] or _is_transposed(
        base, module, (*b[:1], *a[1:]), shape
    )
    if (*b[:1], *a[1:])[:: -1 if transposed else 1] != shape or a[:1] != b[1:]:
        raise Refusal(
            f"{where}: the adapter's factors for {module}, {list(b)} and {list(a)}, do not fit the "
            f"base's {list(shape)}; not an adapter of this base"
        )
    return Patch(pair["A"], pair["B"], _scale(adapter, module, a[0]), transposed)


def _is_transposed(
    base: Headers, module: str, product: tuple[int, ...], shape: tuple[int, ...]
) -> bool:
    """Return whether a layer stores its weight transposed: by its shape, for a square one by its kind.

    The adapter's `fan_in_fan_out` says it of one kind of layer only, and PEFT corrects it for each.
    """
    if product != product[::-1]:
        return product != shape
    conv1d = base.config.get("model_type") in _WITH_CONV1D
    return conv1d and module.rpartition(".")[2] in _CONV1D


def _scale(adapter: Headers, module: str, rank: int) -> float:
    """Return what the product of a module's factors is multiplied by."""
    where, config = adapter.folder, adapter.config
    try:
        stated, alpha = _setting(config, "r", module), _setting(config, "lora_alpha", module)
    except (TypeError, ValueError, AttributeError, re.error):
        raise Refusal(
            f"{where}: no usable r and lora_alpha for {module} in adapter_config.json; fetch it again"
        ) from None
    if stated != rank or not rank:
        raise Refusal(
            f"{where}: adapter_config.json gives {module} rank {stated:g}, its factors have {rank}; "
            "fetch the adapter again"
        )
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _setting(config: Mapping[str, Any], key: str, module: str) -> float:
    """Return r or lora_alpha of a module: the first pattern that its name ends with, else for all."""
    patterns = config.get({"r": "rank_pattern", "lora_alpha": "alpha_pattern"}[key]) or {}
    fitting = (value for p, value in patterns.items() if re.match(rf"(.*\.)?({p})$", module))
    return float(next(fitting, config.get(key, 8)))
