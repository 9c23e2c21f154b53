"""Experts seen through their base: the same tensors, of the same shapes, whatever their files hold.

Three differences are bridged: another vocabulary (rows are matched by token), an output head that one
has and the other ties to its embedding, and buffers that only one saved. An expert without them is
passed through as it is. What was matched, kept and dropped is returned as facts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wildmerge.checkpoints.adapter import Adapted
from wildmerge.checkpoints.compatibility import extra_tensors
from wildmerge.checkpoints.dtypes import FLOATS
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.checkpoints.heads import HEAD, is_tied
from wildmerge.checkpoints.roles import embedding_of, head_of, role_of
from wildmerge.checkpoints.stored import StoredTensor, flat
from wildmerge.checkpoints.tensors import Checkpoint, View
from wildmerge.checkpoints.vocabulary import KEPT, Rows, match_rows
from wildmerge.errors import Refusal

Facts = dict[str, Any]

_WORDS = {
    "adapter": "a LoRA adapter of {} tensors",
    "head": "its output head is {}",
    "shared_rows": "{} rows of its vocabulary are the base's tokens and are merged",
    "kept_rows": "{} rows stay the base's",
    "dropped_rows": "{} rows are dropped",
    "left_out": "left out, since the base lacks them: {}",
    "from_base": "taken from the base: {}",
}
_NAMED = 3
"""Tensors that a message names; the facts have them all."""
_UNRELATED = 0.1
"""Cosine between the weights of base and expert below which they are strangers: fine-tunes measure above
0.9, models trained independently within 0.02 of zero."""
_SAMPLED_TENSORS, _SAMPLED_WEIGHTS = 16, 1 << 14


class Aligned(View):
    """An expert with the tensors of its base, in the base's order of rows.

    Args:
        expert: the expert.
        base: its base.
        names: tensor of the base -> the expert's tensor for it; the base's own where there is none.
        rows: how the rows of embedding and head are matched, if they are not the same.
    """

    def __init__(
        self, expert: Checkpoint, base: Checkpoint, names: Mapping[str, str], rows: Rows | None
    ) -> None:
        tensors = {
            name: TensorInfo(expert.tensors[names[name]].dtype, info.shape)
            if name in names
            else info
            for name, info in base.tensors.items()
        }
        sources = {
            name: (expert, names[name]) if name in names else (base, name) for name in tensors
        }
        super().__init__(expert.folder, expert.config, tensors, sources)
        self._base = base
        self._rows = None if rows is None else torch.tensor(rows.counterparts)

    def __getitem__(self, name: str) -> Tensor:
        """Return the expert's tensor in the base's shape; the base's rows where it has none."""
        tensor, rows = super().__getitem__(name), self._rows_of(name)
        if rows is None:
            return tensor
        start = self._base[name]
        aligned = start.to(torch.promote_types(start.dtype, tensor.dtype), copy=True)
        aligned[rows != KEPT] = tensor[rows[rows != KEPT]].to(aligned.dtype)
        return aligned

    def stored(self, name: str) -> Tensor | StoredTensor:
        """Return the same, read slice by slice where it stands in a file as it is."""
        return super().stored(name) if self._rows_of(name) is None else self[name]

    def _rows_of(self, name: str) -> Tensor | None:
        """Return the expert's row for each of the base's, where a tensor's are not the same."""
        checkpoint, _ = self._sources[name]
        by_token = role_of(name, self.tensors[name].shape) in ("embedding", "head")
        return self._rows if by_token and checkpoint is not self._base else None


def align(
    base: Checkpoint, experts: Mapping[str, Checkpoint], *, untie: bool = False
) -> tuple[Checkpoint, dict[str, Checkpoint], dict[str, Facts]]:
    """Give base and experts, which were found compatible, the same tensors.

    Args:
        base: the base.
        experts: its experts by name.
        untie: give a base whose head is its embedding a head of its own.

    Returns:
        The base, the experts, and what was done to each expert that needed anything.

    Raises:
        Refusal: an expert of a tied base has a head of its own; tokenizers that share nearly nothing;
            weights that have nothing to do with the base's.
    """
    embedding = embedding_of(base.tensors)
    tied = is_tied(base)
    if untie and tied and embedding is not None:
        base, tied = _untied(base, embedding), False
    aligned: dict[str, Checkpoint] = {}
    facts: dict[str, Facts] = {}
    for name, expert in experts.items():
        _require_related(base, expert)
        aligned[name], done = _align(base, expert, tied)
        if done:
            facts[name] = done
    return base, aligned, facts


def _untied(base: Checkpoint, embedding: str) -> Checkpoint:
    """Return a base whose output head is its embedding with a head of its own that equals it."""
    head = head_of(base.tensors) or HEAD
    tensors = dict(base.tensors) | {head: base.tensors[embedding]}
    sources = {name: (base, embedding if name == head else name) for name in tensors}
    return View(base.folder, base.config | {"tie_word_embeddings": False}, tensors, sources)


def warnings_of(facts: Mapping[str, Facts]) -> list[str]:
    """Word the facts for people, a line an expert."""
    return [
        f"{name}: "
        + "; ".join(_WORDS[what].format(_short(value)) for what, value in done.items() if value)
        for name, done in facts.items()
    ]


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    more = ", ..." if len(value) > _NAMED else ""
    return f"{len(value)} tensors ({', '.join(value[:_NAMED])}{more})"


def _align(base: Checkpoint, expert: Checkpoint, tied: bool) -> tuple[Checkpoint, Facts]:
    facts: Facts = {"adapter": len(expert.changed)} if isinstance(expert, Adapted) else {}
    sources = {name: name for name in base.tensors if name in expert.tensors}
    head, embedding = head_of(expert.tensors), embedding_of(expert.tensors)
    if tied and head is not None and embedding is not None:
        _require_no_head(expert, head, embedding)
        if head not in base.tensors:
            facts["head"] = "equal to its embedding and left out"
    elif (wanted := head_of(base.tensors)) is not None and head is None and embedding is not None:
        sources[wanted] = embedding
        facts["head"] = "its embedding"
    rows = _rows(base, expert)
    if rows is not None:
        facts |= {f"{what}_rows": getattr(rows, what) for what in ("shared", "kept", "dropped")}
    if extra := extra_tensors(base, expert):
        facts["left_out"] = extra
    if absent := [name for name in base.tensors if name not in sources]:
        facts["from_base"] = absent
    if rows is None and all(sources.get(name) == name for name in base.tensors):
        return expert, facts
    return Aligned(expert, base, sources, rows), facts


def _require_no_head(expert: Checkpoint, head: str, embedding: str) -> None:
    if not _equal(expert, head, embedding):
        raise Refusal(
            f"{expert.folder}: has an output head of its own ({head}), the base ties it to the "
            "embedding; set untie: true to give the merged model one, or leave this expert out"
        )


def _equal(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Return whether two tensors of a checkpoint hold the same values."""
    a, b = checkpoint[one], checkpoint[other]
    dtype = torch.promote_types(a.dtype, b.dtype)
    return torch.equal(a.to(dtype), b.to(dtype))


def _rows(base: Checkpoint, expert: Checkpoint) -> Rows | None:
    ours, theirs = embedding_of(base.tensors), embedding_of(expert.tensors)
    if ours is None or theirs is None:
        return None
    sizes = base.tensors[ours].shape[0], expert.tensors[theirs].shape[0]
    return match_rows(base.tokenizer, expert.tokenizer, *sizes)


def _require_related(base: Checkpoint, expert: Checkpoint) -> None:
    """Refuse an expert whose weights are those of another model, by a sample of its matrices."""
    if isinstance(expert, Adapted):  # the base itself, and what training added
        return
    products = torch.zeros(3, dtype=torch.float64)
    for name in _sampled(base, expert):
        ours, theirs = (flat(c.stored(name))[:_SAMPLED_WEIGHTS].float() for c in (base, expert))
        products += torch.stack([ours.dot(theirs), ours.dot(ours), theirs.dot(theirs)])
    cosine = products[0] / (products[1] * products[2]).sqrt()
    if cosine < _UNRELATED:  # not where a norm is 0 or a weight is NaN, which is found elsewhere
        raise Refusal(
            f"{expert.folder}: its weights have nothing to do with the base's (cosine {cosine:.2f}); "
            "give the base that it was fine-tuned from"
        )


def _sampled(base: Checkpoint, expert: Checkpoint) -> list[str]:
    """Return the names of some matrices that both have, spread over the model."""
    matrices = [
        name
        for name, info in base.tensors.items()
        if name in expert.tensors and info.dtype in FLOATS and role_of(name, info.shape) == "matrix"
    ]
    return matrices[:: max(1, len(matrices) // _SAMPLED_TENSORS)]
