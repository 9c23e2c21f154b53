"""Which tensor of an expert stands for which of its base, whatever prefixes their names have."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from wildmerge.checkpoints.headers import Headers
from wildmerge.checkpoints.heads import is_tied
from wildmerge.checkpoints.roles import embedding_of, head_of, in_a_layer, role_of
from wildmerge.errors import Refusal

_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_CONTAINERS = re.compile(
    r"^((module|base_model|model|transformer|backbone|language_model|text_model|gpt_neox|rwkv)\.)+"
)
"""Modules that hold the whole language model, by which names of the same weights differ."""


@dataclass(frozen=True)
class Match:
    """How an expert's tensors fit its base's.

    `names` maps tensors of the base to the expert's. `extra` are those that the base lacks, except an
    output head; `absent` are buffers of the base that the expert lacks.
    """

    names: dict[str, str]
    extra: list[str]
    absent: list[str]


def match(base: Headers, expert: Headers) -> Match:
    """Match an expert's tensors with its base's, by name.

    Raises:
        Refusal: the expert lacks one, or has a further one in its layers.
    """
    alike = base.tensors.keys() <= expert.tensors.keys()
    bare = {} if alike else by_bare_name(expert.tensors)
    names, absent, used = {}, [], {head_of(expert)}
    for name, info in base.tensors.items():
        found = name if name in expert.tensors else bare.get(bare_name(name))
        used.add(found)
        if role_of(name, info.shape) == "buffer":
            absent += [] if found else [name]
        elif found is None and name == head_of(base):
            names[name] = _head_for(base, expert)
        elif found is None:
            raise Refusal(_missing(name, base, expert))
        else:
            names[name] = found
    extra = [name for name in expert.tensors if name not in used]
    for name in extra:
        if in_a_layer(name) and role_of(name, expert.tensors[name].shape) != "buffer":
            raise Refusal(
                f"{expert.folder}: tensor {name} does not exist in the base; not an expert of this base"
            )
    return Match(names, extra, absent)


def bare_name(name: str) -> str:
    """Return a tensor's name without the modules that wrap the language model."""
    return _CONTAINERS.sub("", _WRAPPERS.sub("", name).removeprefix("."))


def by_bare_name(names: Iterable[str]) -> dict[str, str]:
    """Return bare name -> name, without those that two tensors share."""
    names = list(names)
    counts = Counter(map(bare_name, names))
    return {bare_name(name): name for name in names if counts[bare_name(name)] == 1}


def _head_for(base: Headers, expert: Headers) -> str:
    """Return the expert's tensor for the base's output head: its own, or the embedding if it is that."""
    if own := head_of(expert):
        return own
    embedding = embedding_of(expert)
    if embedding and (is_tied(expert) or is_tied(base)):
        return embedding
    kind = ", ".join(expert.config.get("architectures") or ["no architecture named"])
    raise Refusal(
        f"{expert.folder}: has no output head, and its config does not tie it to the embedding "
        f"({kind}); give a model with a language-model head"
    )


def _missing(name: str, base: Headers, expert: Headers) -> str:
    """Say that the expert lacks a tensor; or that all its names have another prefix."""
    ours, theirs = _first_layers(base.tensors), _first_layers(expert.tensors)
    shared = ours.keys() & theirs.keys()
    if shared and not any(ours[core] == theirs[core] for core in shared):
        core = min(shared)
        return (
            f"{expert.folder}: its tensors have the prefix '{theirs[core]}' where the base's have "
            f"'{ours[core]}'; rename them ({theirs[core]}{core} is {ours[core]}{core})"
        )
    return f"{expert.folder}: tensor {name} of the base is missing; not an expert of this base"


def _first_layers(names: Iterable[str]) -> dict[str, str]:
    """Return for the tensors of the first layers what follows the number, and what stands before it."""
    found = [re.fullmatch(r"(.*?)(\.0\..+)", name) for name in names]
    return {match[2]: match[1] for match in found if match}
