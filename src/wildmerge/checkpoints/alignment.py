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
from wildmerge.checkpoints.headers import TensorInfo
from wildmerge.checkpoints.heads import HEAD, is_tied
from wildmerge.checkpoints.matching import Match, match
from wildmerge.checkpoints.roles import embedding_of, head_of, roles_of
from wildmerge.checkpoints.stored import StoredTensor
from wildmerge.checkpoints.tensors import Checkpoint, View
from wildmerge.checkpoints.vocabulary import KEPT, Rows, match_rows
from wildmerge.checkpoints.weight_checks import equal, require_clear_head, require_sound
from wildmerge.errors import Refusal

Facts = dict[str, Any]

_WORDS = {
    "head": "its output head is {}",
    "shared_rows": "{} rows of its vocabulary are the base's tokens and are merged",
    "kept_rows": "{} rows stay the base's",
    "dropped_rows": "{} rows are dropped",
    "left_out": "left out, since the base lacks them: {}",
    "from_base": "taken from the base: {}",
}
_NAMED = 3
"""Tensors that a message names; the facts have them all."""


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
        self._by_token = {n for n, role in roles_of(base).items() if role in ("embedding", "head")}

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
        return self._rows if name in self._by_token and checkpoint is not self._base else None


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
            weights that have nothing to do with the base's, or are zeros of a broken save; a stored head
            that contradicts its config.
    """
    require_clear_head(base)
    embedding = embedding_of(base)
    if untie and embedding is not None and is_tied(base):
        base = _untied(base, embedding)
    aligned: dict[str, Checkpoint] = {}
    facts: dict[str, Facts] = {}
    for name, expert in experts.items():
        matched = match(base, expert)
        require_sound(base, expert, matched.names)
        require_clear_head(expert)
        aligned[name], done = _align(base, expert, matched)
        if done:
            facts[name] = done
    return base, aligned, facts


def warnings_of(facts: Mapping[str, Facts]) -> list[str]:
    """Word for people, a line an expert, what is not merged of it as it is."""
    lines = {
        name: [_WORDS[what].format(_short(v)) for what, v in done.items() if v and what in _WORDS]
        for name, done in facts.items()
    }
    return [f"{name}: {'; '.join(words)}" for name, words in lines.items() if words]


def _untied(base: Checkpoint, embedding: str) -> Checkpoint:
    """Return a base whose output head is its embedding with a head of its own that equals it."""
    head = head_of(base) or HEAD
    tensors = dict(base.tensors) | {head: base.tensors[embedding]}
    sources = {name: (base, embedding if name == head else name) for name in tensors}
    return View(base.folder, base.config | {"tie_word_embeddings": False}, tensors, sources)


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    more = ", ..." if len(value) > _NAMED else ""
    return f"{len(value)} tensors ({', '.join(value[:_NAMED])}{more})"


def _align(base: Checkpoint, expert: Checkpoint, matched: Match) -> tuple[Checkpoint, Facts]:
    facts: Facts = {"adapter": len(expert.changed)} if isinstance(expert, Adapted) else {}
    facts |= _head_facts(base, expert, matched)
    rows = _rows(base, expert)
    if rows is not None:
        facts |= {f"{what}_rows": getattr(rows, what) for what in ("shared", "kept", "dropped")}
    if matched.extra:
        facts["left_out"] = matched.extra
    if matched.absent:
        facts["from_base"] = matched.absent
    as_it_is = all(name == source for name, source in matched.names.items())
    if rows is None and as_it_is and not matched.absent:
        return expert, facts
    return Aligned(expert, base, matched.names, rows), facts


def _head_facts(base: Checkpoint, expert: Checkpoint, matched: Match) -> Facts:
    """Say what became of an expert's output head, if it is not merged into the base's."""
    head, embedding, wanted = head_of(expert), embedding_of(expert), head_of(base)
    if is_tied(base) and head and embedding:
        if not equal(expert, head, embedding):
            raise Refusal(
                f"{expert.folder}: has an output head of its own ({head}), the base ties it to the "
                "embedding; set untie: true to give the merged model one, or leave this expert out"
            )
        return {} if wanted else {"head": "equal to its embedding and left out"}
    if wanted and matched.names[wanted] == embedding:
        return {"head": "its embedding"}
    return {}


def _rows(base: Checkpoint, expert: Checkpoint) -> Rows | None:
    ours, theirs = embedding_of(base), embedding_of(expert)
    if ours is None or theirs is None:
        return None
    sizes = base.tensors[ours].shape[0], expert.tensors[theirs].shape[0]
    return match_rows(base.tokenizer, expert.tokenizer, *sizes)
