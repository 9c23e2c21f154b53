"""What only the weights show: another model, zeros of a broken save, a head that the config denies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from wildmerge.checkpoints.adapter import Adapted
from wildmerge.checkpoints.heads import is_tied
from wildmerge.checkpoints.roles import embedding_of, head_of, merged_tensors, roles_of
from wildmerge.checkpoints.stored import flat
from wildmerge.checkpoints.tensors import Checkpoint
from wildmerge.errors import Refusal

_UNRELATED = 0.1
"""Cosine between the weights of base and expert below which they are strangers: fine-tunes measure above
0.9, models trained independently within 0.02 of zero."""
_SAMPLED_TENSORS, _SAMPLED_WEIGHTS = 16, 1 << 14
_BLOCK = 1 << 12
"""Weights that are looked at in three places of every tensor; files are written in no smaller pieces."""


def require_sound(base: Checkpoint, expert: Checkpoint, names: Mapping[str, str]) -> None:
    """Refuse an expert whose weights cannot be a fine-tune of the base's, by a sample of them.

    Args:
        base: the base.
        expert: the expert; an adapter passes, since it is the base and what training added.
        names: tensor of the base -> the expert's tensor for it.

    Raises:
        Refusal: weights of another model, or zeros where the base has none.
    """
    if isinstance(expert, Adapted):
        return
    roles = roles_of(base)
    by_token = {name for name, role in roles.items() if role in ("embedding", "head")}
    compared = [name for name in merged_tensors(base) if name in names]
    for name in compared:
        if name in by_token:  # rows of single tokens may be zero
            zero = not _all_zero(base, name) and _all_zero(expert, names[name])
        else:
            zero = any(_zero_blocks(base, expert, name, names[name]))
        if zero:
            raise Refusal(
                f"{expert.folder}: tensor {names[name]} holds zeros where the base has weights, as a "
                "save or download that broke off leaves them; fetch or save it again"
            )
    _require_related(
        base, expert, {name: names[name] for name in compared if roles[name] == "matrix"}
    )


def require_clear_head(checkpoint: Checkpoint) -> None:
    """Refuse a stored output head that is not the embedding, where the config says that it is."""
    head, embedding = head_of(checkpoint), embedding_of(checkpoint)
    if not head or not embedding or not is_tied(checkpoint) or equal(checkpoint, head, embedding):
        return
    raise Refusal(
        f"{checkpoint.folder}: {head} differs from the embedding, to which its config ties it, and "
        "programs disagree on which of them is the output head; delete the tensor, or set "
        "tie_word_embeddings: false in its config.json"
    )


def equal(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Return whether two tensors of a checkpoint hold the same values."""
    a, b = checkpoint[one], checkpoint[other]
    dtype = torch.promote_types(a.dtype, b.dtype)
    return torch.equal(a.to(dtype), b.to(dtype))


def _require_related(base: Checkpoint, expert: Checkpoint, matrices: Mapping[str, str]) -> None:
    """Refuse an expert whose weights are those of another model, by a sample of its matrices."""
    products = torch.zeros(3, dtype=torch.float64)
    for name, source in list(matrices.items())[:: max(1, len(matrices) // _SAMPLED_TENSORS)]:
        ours = flat(base.stored(name))[:_SAMPLED_WEIGHTS].float()
        theirs = flat(expert.stored(source))[:_SAMPLED_WEIGHTS].float()
        products += torch.stack([ours.dot(theirs), ours.dot(ours), theirs.dot(theirs)])
    cosine = products[0] / (products[1] * products[2]).sqrt()
    if cosine < _UNRELATED:  # not where a norm is 0 or a weight is NaN, which is found elsewhere
        raise Refusal(
            f"{expert.folder}: its weights have nothing to do with the base's (cosine {cosine:.2f}); "
            "give the base that it was fine-tuned from"
        )


def _all_zero(checkpoint: Checkpoint, name: str) -> bool:
    return not any(bool(block.any()) for block in _blocks(checkpoint, name)) and not bool(
        checkpoint[name].any()
    )


def _zero_blocks(base: Checkpoint, expert: Checkpoint, name: str, source: str) -> Iterator[bool]:
    """Yield for three blocks of a tensor whether the expert's is zero and the base's is not."""
    for ours, theirs in zip(_blocks(base, name), _blocks(expert, source), strict=True):
        yield len(ours) > 1 and not bool(theirs.any()) and bool(ours.any())


def _blocks(checkpoint: Checkpoint, name: str) -> Iterator[Tensor]:
    """Yield the first, the middle and the last weights of a tensor."""
    tensor = flat(checkpoint.stored(name))
    last = max(0, tensor.numel() - _BLOCK)
    for start in sorted({0, last // 2, last}):
        yield tensor[start : start + _BLOCK]
