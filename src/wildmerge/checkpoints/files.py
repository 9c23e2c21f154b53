"""Which files of a folder are its checkpoint: one rule for merging, scoring and identity.

The rule is that of transformers, which scores: `model.safetensors`, else the shards of its index, else
`pytorch_model.bin`, else the shards of its index. What transformers would not load is taken only where
there is nothing else: shards without an index, or safetensors files of other names.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from wildmerge.errors import Refusal
from wildmerge.storage.files import read_json

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "tekken.json",
    "chat_template*",
    "*processor_config.json",
)
"""Files beside weights and config that scoring reads and a merged model needs."""
_FORMS = (
    ("model", "safetensors", CONFIG),
    ("pytorch_model", "bin", CONFIG),
    ("adapter_model", "safetensors", ADAPTER_CONFIG),
    ("adapter_model", "bin", ADAPTER_CONFIG),
)
"""How a folder may hold its weights, best first: stem and suffix of the files, config."""
_NOT_THE_MODEL = ("adapter_", "consolidated", "value_head", "optimizer")
"""Beginnings of safetensors files that are no model, or the same weights once more."""

_POINTER = b"version https://git-lfs"


class Weights(NamedTuple):
    """Names of the files that hold a checkpoint's weights, of its config and of its index, if any."""

    files: tuple[str, ...]
    config: str
    listing: str | None = None


def choose(names: Collection[str], indexed: Callable[[str], Iterable[str]]) -> Weights | None:
    """Choose the weights among the files of a folder or a repository; None where there are none.

    Args:
        names: the files' names.
        indexed: returns the files that an index, given by its name, lists.
    """
    for stem, suffix, config in _FORMS:
        single = f"{stem}.{suffix}"
        if single in names:
            return Weights((single,), config)
        if f"{single}.index.json" in names:
            shards = sorted(set(indexed(f"{single}.index.json")))
            return Weights(tuple(shards), config, f"{single}.index.json")
    for stem, suffix, config in _FORMS:
        if numbered := _numbered(names, stem, suffix):
            return Weights(tuple(numbered), config)
    others = [n for n in fnmatch.filter(names, "*.safetensors") if not n.startswith(_NOT_THE_MODEL)]
    return Weights(tuple(sorted(others)), CONFIG) if others else None


def weights_of(folder: Path) -> Weights:
    """Return the files that hold a folder's weights, all of which are there.

    Raises:
        Refusal: no such folder, no weights in it, some that are missing, or whole weights beside an
            adapter, which merging would leave out and transformers would add.
    """
    if not folder.is_dir():
        raise Refusal(f"{folder}: no such checkpoint folder; check the path")
    names = {path.name for path in folder.iterdir()}
    found = choose(names, lambda index: indexed_files(folder / index))
    if found is None:
        raise Refusal(_no_weights(folder))
    if found.config == CONFIG and ADAPTER_CONFIG in names:
        raise Refusal(
            f"{folder}: holds whole weights ({found.files[0]}) and an adapter, which transformers would "
            "add to them; move one of the two into a folder of its own"
        )
    for name in found.files:
        if not (folder / name).is_file():
            why = f"{found.listing} names it" if found.listing else f"of {len(found.files)} shards"
            raise Refusal(f"{folder / name}: missing ({why}); fetch or save the checkpoint again")
        _require_content(folder / name)
    return found


def model_files(folder: Path) -> list[Path]:
    """Return every file that merging or scoring reads of a checkpoint folder, sorted.

    Its identity is that of these files: optimizer states, notes and model cards are no part of it.
    """
    weights = weights_of(folder)
    names = {path.name for path in folder.iterdir() if path.is_file()}
    read = {*weights.files, weights.config, weights.listing or ""}
    read |= {name for pattern in COMPANIONS for name in fnmatch.filter(names, pattern)}
    return [folder / name for name in sorted(read & {*names, *weights.files})]


def indexed_files(index: Path) -> set[str]:
    """Return the names of the files that an index lists.

    Raises:
        Refusal: it is no index, or names a file outside of its folder.
    """
    try:
        content = read_json(index, missing="fetch the checkpoint again")
        names = {str(name) for name in content["weight_map"].values()}
    except (Refusal, KeyError, AttributeError):
        raise Refusal(f"{index}: not a weight index; fetch the checkpoint again") from None
    if not names:
        raise Refusal(f"{index}: lists no files; fetch the checkpoint again")
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise Refusal(f"{index}: names {name}, which is outside of the folder; save it again")
    return names


def _require_content(file: Path) -> None:
    """Refuse the text that Git leaves in place of a large file."""
    with open(file, "rb") as stream:
        if stream.read(len(_POINTER)) == _POINTER:
            raise Refusal(f"{file}: a Git LFS pointer in place of the weights; run `git lfs pull`")


def _numbered(names: Collection[str], stem: str, suffix: str) -> list[str]:
    """Return the names of all shards of a checkpoint whose first shard is there."""
    for name in sorted(fnmatch.filter(names, f"{stem}-*-of-*.{suffix}")):
        if match := re.fullmatch(rf"{stem}-\d+-of-(\d+)\.{suffix}", name):
            digits, count = len(match[1]), int(match[1])
            return [f"{stem}-{i + 1:0{digits}d}-of-{match[1]}.{suffix}" for i in range(count)]
    return []


def _no_weights(folder: Path) -> str:
    """Say that a folder holds no weights, and in which of its folders there are some."""
    below = sorted(
        path.name
        for path in folder.iterdir()
        if path.is_dir() and choose({inner.name for inner in path.iterdir()}, lambda index: [index])
    )
    if not below:
        return f"{folder}: no .safetensors or .bin weights; save the checkpoint as safetensors"
    return f"{folder}: no weights in it, but in its folders {', '.join(below)}; give one of those"
