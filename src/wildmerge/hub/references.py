"""Checkpoints of the Hugging Face hub: what a reference means, which files count, where they lie.

A reference is a folder or a hub id, `org/name[@revision]`. Only `resolve` and `fetch` use the network;
everything else reads the hub's own cache.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from wildmerge.checkpoints.opening import holds_adapter, open_weights
from wildmerge.errors import Refusal
from wildmerge.hub.cache import STREAMS, bring, commit_of, fetch, is_whole, snapshot
from wildmerge.storage.files import sha256_of

__all__ = ["Entry", "describe", "fetch", "folder_of", "is_hub", "parts", "resolve", "resolve_all"]

Entry = dict[str, Any]
"""A locked hub checkpoint: repo, commit, files (name -> size and sha256), config, tensors (name ->
[dtype, shape]) and identity, `org/name@commit`."""

COMPANIONS = (
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "chat_template*",
)
"""Files beside weights and config that scoring reads and a merged model needs."""
_WEIGHTS = (
    ("model", ".safetensors", "config.json"),
    ("adapter_model", ".safetensors", "adapter_config.json"),
    ("pytorch_model", ".bin", "config.json"),
    ("adapter_model", ".bin", "adapter_config.json"),
)
"""How a repository may hold its weights, best first: stem and suffix of the files, config."""
_ID = re.compile(r"(?!.*\.\.)([a-z0-9][\w.-]*/[a-z0-9][\w.-]*)(?:@([\w./-]+))?", re.ASCII | re.I)


def is_hub(reference: str) -> bool:
    """Tell whether a reference is a hub id; where a folder of that name exists it is the folder."""
    if reference.startswith((".", "/", "~", "results/")) or Path(reference).is_dir():
        return False
    return _ID.fullmatch(reference) is not None


def parts(reference: str) -> tuple[str, str]:
    """Split a hub id into repository and revision, `main` when none is given."""
    found = _ID.fullmatch(reference)
    if found is None:
        raise Refusal(f"{reference}: neither a folder nor a hub id (org/name, org/name@revision)")
    return found[1], found[2] or "main"


def folder_of(reference: str, entry: Entry | None = None) -> Path:
    """Return the folder in which a checkpoint's files lie, without any network.

    Args:
        reference: folder or hub id.
        entry: its lock entry; without one the cache's own note says what the revision means.

    Raises:
        Refusal: a hub checkpoint has not been fetched, or not all of it.
    """
    if not ("repo" in entry if entry else is_hub(reference)):
        return Path(reference)
    repo, revision = parts(reference)
    commit = entry["commit"] if entry else commit_of(repo, revision)
    folder = snapshot(repo, commit)
    if not folder.is_dir() or not is_whole(repo, commit, entry["files"] if entry else {}):
        wanted = entry["identity"] if entry else reference
        raise Refusal(f"{reference}: not fetched; run `wildmerge fetch {wanted}` (needs network)")
    return folder


def is_here(reference: str) -> bool:
    """Tell whether a checkpoint is a folder, or a hub checkpoint that was fetched."""
    try:
        folder_of(reference)
    except Refusal:
        return False
    return True


def resolve(reference: str) -> Entry:
    """Look up what a hub id means now and return it as a lock entry.

    Small files are brought on the way, since the hub knows no SHA-256 of them; of safetensors weights
    only the headers are read. Other weights have to be brought whole to know their tensors.

    Raises:
        Refusal: missing, gated, without weights, or the hub cannot be reached.
    """
    repo, revision = parts(reference)
    commit, listed = _listing(reference, repo, revision)

    def here(name: str) -> Path:
        size, digest = listed[name]
        return bring(repo, commit, name, size=size, digest=digest)

    weights, config = _weights(reference, set(listed), lambda name: here(name).read_text())
    names = {config, *weights}.union(
        *(fnmatch.filter(listed, p) for p in (*COMPANIONS, "README.md"))
    )
    files = {
        name: {"size": size, "sha256": digest if len(digest) == 64 else sha256_of(here(name))}
        for name, (size, digest) in sorted(listed.items())
        if name in names and not name.endswith(".py")
    }
    entry = {"repo": repo, "commit": commit, "identity": f"{repo}@{commit}", "files": files}
    shards = [name for name in weights if name.endswith(".safetensors")]
    if not shards:
        fetch(entry)
        return entry | describe(folder_of(reference, entry))
    headers = [_remote_header(repo, commit, shard) for shard in shards]
    tensors = {name: info for header in headers for name, info in header.items()}
    return entry | {"config": _read_config(here(config)), "tensors": tensors}


def resolve_all(references: Iterable[str]) -> dict[str, Entry]:
    """Resolve several hub ids at once; raises one Refusal that names all that failed."""

    def attempt(reference: str) -> Entry | Refusal:
        try:
            return resolve(reference)
        except Refusal as refusal:
            return refusal

    references = list(references)
    if not references:
        return {}
    with ThreadPoolExecutor(STREAMS) as pool:
        results = pool.map(attempt, references)
        bar = tqdm(results, "resolving", len(references), unit="repository", disable=None)
        found = dict(zip(references, bar, strict=True))
    failures = [str(result) for result in found.values() if isinstance(result, Refusal)]
    if failures:
        raise Refusal("; ".join(failures))
    return {key: result for key, result in found.items() if not isinstance(result, Refusal)}


def describe(folder: Path) -> Entry:
    """Return config and tensors of a checkpoint folder, as lock entries have them; no weight is read."""
    tensors = open_weights(folder).tensors.items()
    return {
        "config": _read_config(folder / ("adapter_" * holds_adapter(folder) + "config.json")),
        "tensors": {name: [info.dtype, list(info.shape)] for name, info in sorted(tensors)},
    }


def _read_config(path: Path) -> Any:
    try:  # JSON has no Infinity, but some configs do
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=str)
    except OSError:
        raise Refusal(f"{path}: missing; a checkpoint needs its config.json") from None
    except ValueError:
        raise Refusal(f"{path}: not valid JSON; fetch it again") from None


def _listing(reference: str, repo: str, revision: str) -> tuple[str, dict[str, tuple[int, str]]]:
    """Return the commit of a revision, and size and digest (see `bring`) of its files by name."""
    from huggingface_hub import constants

    from wildmerge.hub.transfer import patiently

    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    info = patiently(
        lambda: _api().model_info(repo, revision=revision, files_metadata=True, timeout=seconds),
        reference,
    )
    files = [file for file in info.siblings or [] if "/" not in file.rfilename and file.size]
    return info.sha, {f.rfilename: (f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in files}


def _api() -> Any:
    from huggingface_hub import HfApi, constants

    from wildmerge.hub.transfer import token

    return HfApi(endpoint=constants.ENDPOINT, token=token())


def _weights(reference: str, names: set[str], read: Callable[[str], str]) -> tuple[list[str], str]:
    """Return the files that hold the weights, once each, and the config that goes with them."""
    for stem, suffix, config in _WEIGHTS:
        index = f"{stem}{suffix}.index.json"
        shards = {name for name in names if re.fullmatch(rf"{stem}-\d+-of-\d+{suffix}", name)}
        if index in names:
            try:
                indexed = set(json.loads(read(index))["weight_map"].values())
            except (ValueError, KeyError, AttributeError, TypeError):
                raise Refusal(f"{reference}: {index} is not a weight index") from None
            if indexed <= names and config in names:
                return [index, *sorted(indexed)], config
        if f"{stem}{suffix}" in names and config in names:
            return [f"{stem}{suffix}"], config
        if shards and index not in names and config in names:
            return sorted(shards), config
    raise Refusal(
        f"{reference}: holds no whole checkpoint (config.json and safetensors or .bin weights, or a "
        "LoRA adapter); choose another repository"
    )


def _remote_header(repo: str, commit: str, name: str) -> dict[str, list[Any]]:
    """Return name -> [dtype, shape] of the tensors of a safetensors file on the hub."""
    from huggingface_hub.errors import SafetensorsParsingError

    from wildmerge.hub.transfer import patiently

    def header() -> Any:
        return _api().parse_safetensors_file_metadata(repo, name, revision=commit)

    try:
        found = patiently(header, repo).tensors
    except SafetensorsParsingError:
        raise Refusal(f"{repo}: {name} has no safetensors header") from None
    return {tensor: [info.dtype, list(info.shape)] for tensor, info in sorted(found.items())}
