"""What a tensor is for, by its name, its shape and the config; torch is not imported."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from wildmerge.checkpoints.dtypes import FLOATS
from wildmerge.checkpoints.headers import Headers, TensorInfo

Role = Literal["matrix", "embedding", "head", "buffer", "other"]
Kind = Literal["embedding", "head", "norm", "attention", "mlp", "other"]

_EMBEDDINGS = {"embed_tokens", "embed_tokens_per_layer", "wte", "word_embeddings", "embed_in"}
_HEADS = {"lm_head", "embed_out"}
_LIKE_AN_EMBEDDING = re.compile(r"emb|tok|wte|shared")
_OF_POSITIONS = re.compile(r"pos|wpe")
_KINDS: dict[Kind, re.Pattern[str]] = {  # the first that fits: norms stand inside of the others
    "norm": re.compile(r"norm|(^|\.|_)ln(_|\d|\.)"),
    "attention": re.compile(r"attn|attention"),
    "mlp": re.compile(r"mlp|feed_forward|ffn|(^|\.)fc\d|expert|moe"),
}
_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_IN_A_LAYER = re.compile(r"(^|.*\.)\d+\..+")
_BUFFER = re.compile(
    r"(.+\.)?(inv_freq|original_inv_freq|masked_bias|position_ids|(cos|sin)_cached|rotary_emb\..+|"
    r"_extra_state)"
)
_CAUSAL_MASK = re.compile(r"(.+\.)?(attn|attention)\.bias")


@lru_cache(maxsize=1 << 17)  # the tensors of a mixture of experts, asked for by each checkpoint
def role_of(name: str, shape: tuple[int, ...]) -> Role:
    """Return how a tensor is treated, by name and shape alone (see `roles_of`).

    Buffers are computed from the config and hold nothing that was learnt.
    """
    if _BUFFER.fullmatch(name) or (_CAUSAL_MASK.fullmatch(name) and len(shape) == 4):
        return "buffer"
    parts = set(name.split("."))
    if parts & _EMBEDDINGS:
        return "embedding"
    if parts & _HEADS:
        return "head"
    return "matrix" if len(shape) == 2 else "other"


def roles_of(checkpoint: Headers) -> dict[str, Role]:
    """Return the role of every tensor of a checkpoint.

    Of other names than the known ones, embedding and head are matrices outside of the layers that have a
    row for every token of the config's vocabulary.
    """
    tensors = checkpoint.tensors
    roles = {name: role_of(name, info.shape) for name, info in tensors.items()}
    known = set(roles.values())
    by_token = _rows_by_token(checkpoint)
    embeddings = {name for name in by_token if _LIKE_AN_EMBEDDING.search(name)}
    if len(by_token) == 1 and "embedding" not in known:
        embeddings = by_token
    roles |= dict.fromkeys(embeddings, "embedding")
    if "head" not in known:
        roles |= dict.fromkeys(by_token - embeddings, "head")
    heads = [name for name, role in roles.items() if role == "head" and name.endswith("weight")]
    return roles | {name: "head" for head in heads for name in _biases_of(head, tensors)}


def embedding_of(checkpoint: Headers) -> str | None:
    """Return the name of the weight that holds a row for every token, if it is there."""
    return _first("embedding", checkpoint)


def head_of(checkpoint: Headers) -> str | None:
    """Return the name of the output head's weight; None where there is no tensor of it."""
    return _first("head", checkpoint)


def merged_tensors(checkpoint: Headers) -> dict[str, TensorInfo]:
    """Return the tensors that a merge works on: floating-point weights, no buffers, nothing empty."""
    return {
        name: info
        for name, info in checkpoint.tensors.items()
        if info.dtype in FLOATS and 0 not in info.shape and role_of(name, info.shape) != "buffer"
    }


def in_a_layer(name: str) -> bool:
    """Return whether a tensor belongs to a numbered layer."""
    return bool(_IN_A_LAYER.fullmatch(name))


def kind_of(name: str, role: Role) -> Kind:
    """Return what part of a model a tensor is, for people who read tables; no method looks at it."""
    if role in ("embedding", "head"):
        return role
    return next((kind for kind, words in _KINDS.items() if words.search(name)), "other")


def layer_of(name: str) -> int | None:
    """Return the number of the layer that a tensor belongs to, the first number in its name."""
    found = _LAYER.search(name) if in_a_layer(name) else None
    return int(found[1]) if found else None


def _first(role: Role, checkpoint: Headers) -> str | None:
    roles = roles_of(checkpoint)
    return next((name for name in roles if roles[name] == role and name.endswith("weight")), None)


def _rows_by_token(checkpoint: Headers) -> set[str]:
    """Return the matrices of unknown names that may have a row for every token."""
    rows = _vocabulary_size(checkpoint.config)
    return {
        name
        for name, info in checkpoint.tensors.items()
        if len(info.shape) == 2
        and info.shape[0] == rows
        and role_of(name, info.shape) == "matrix"
        and not in_a_layer(name)
        and not _OF_POSITIONS.search(name)
    }


def _vocabulary_size(config: Mapping[str, Any]) -> int | None:
    for part in (config, config.get("text_config") or {}):
        for key in ("padded_vocab_size", "vocab_size", "n_vocab"):
            if isinstance(part.get(key), int):
                return int(part[key])
    return None


def _biases_of(head: str, tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Return the biases of a head: one value a token, in its module or in one that holds it."""
    module, rows = head.rpartition(".")[0], tensors[head].shape[:1]
    return [
        name
        for name, info in tensors.items()
        if name.endswith(".bias")
        and info.shape == rows
        and f"{module}.".startswith(name.removesuffix("bias"))
    ]
