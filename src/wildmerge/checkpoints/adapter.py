"""LoRA adapters, read as the experts that they make of their base.

Such an expert looks like any other checkpoint: a tensor is composed, in float32, when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wildmerge.checkpoints.composition import compose
from wildmerge.checkpoints.headers import Headers
from wildmerge.checkpoints.roles import embedding_of
from wildmerge.checkpoints.tensors import Checkpoint, View

if TYPE_CHECKING:
    from torch import Tensor

    from wildmerge.checkpoints.stored import StoredTensor


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
        sources = {
            name: (weights if own else base, source) for name, (source, own) in made.sources.items()
        }
        super().__init__(weights.folder, made.config, made.tensors, sources)
        self._weights, self._base, self._patches = weights, base, made.patches
        self._states |= weights._states
        self.changed = made.changed
        self.remarks = [
            f"a LoRA adapter of {len(self.changed)} tensors",
            *_other_base(weights, base),
        ]

    @property
    def tokenizer(self) -> Path | None:
        """The adapter's own tokenizer.json where it has an embedding of its own, else the base's."""
        embedding = embedding_of(self)
        own = embedding is not None and self._sources[embedding][0] is self._weights
        return (self._weights.tokenizer if own else None) or self._base.tokenizer

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor of the expert: float32 where the adapter adds to it, else as stored."""
        if name not in self._patches:
            return super().__getitem__(name)
        patch = self._patches[name]
        a, b = self._weights[patch.a].float(), self._weights[patch.b].float()
        left, right = (a.T, b.T) if patch.transposed else (b, a)
        return super().__getitem__(name).float().addmm(left, right, alpha=patch.scale)

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return the same, read slice by slice where the adapter adds nothing to it."""
        return self[name] if name in self._patches else super().stored(name)


def is_adapter(config: Mapping[str, Any]) -> bool:
    """Return whether a config is an adapter's, not a whole model's."""
    return "peft_type" in config


def _other_base(adapter: Headers, base: Checkpoint) -> list[str]:
    """Return a remark where the adapter names another base than the one that it is applied to."""
    stated = str(adapter.config.get("base_model_name_or_path") or "")
    known = {str(base.config.get("_name_or_path")), str(base.folder), base.folder.name}
    known |= {part.removeprefix("models--").replace("--", "/") for part in base.folder.parts}
    if not stated or stated in known or Path(stated).name in {Path(name).name for name in known}:
        return []
    return [f"its adapter_config.json names another base, {stated}"]
