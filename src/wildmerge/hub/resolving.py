"""What a hub id means now: its commit, which of its files count, their digests, config and tensors."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from wildmerge.checkpoints.files import COMPANIONS, choose, indexed_files
from wildmerge.errors import Refusal
from wildmerge.hub.downloading import STREAMS, download, fetch
from wildmerge.hub.references import (
    Entry,
    describe,
    folder_of,
    is_hub,
    no_folder,
    parts,
    read_config,
)
from wildmerge.hub.retries import token, with_retries
from wildmerge.storage.files import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def resolve(reference: str) -> Entry:
    """Look up what a hub id means now and return it as a lock entry.

    Small files are downloaded on the way, since the hub knows no SHA-256 of them; of safetensors weights
    only the headers are read. Other weights have to be downloaded whole to know their tensors.

    Raises:
        Refusal: no hub id, missing, gated, without weights, or the hub cannot be reached.
    """
    if not is_hub(reference):
        raise Refusal(no_folder(reference))
    repo, revision = parts(reference)
    commit, listed = _listing(reference, repo, revision)

    def here(name: str) -> Path:
        size, digest = listed[name]
        return download(repo, commit, name, size=size, digest=digest)

    weights, config = _weights(reference, set(listed), here)
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
    return entry | {"config": read_config(here(config)), "tensors": tensors}


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


def resolve_dataset(repo: str, revision: str = "main") -> str:
    """Return the commit that a revision of a data set's repository means now.

    Args:
        repo: of the data set, with or without an organisation.
        revision: branch, tag or commit.

    Raises:
        Refusal: missing, gated, or the hub cannot be reached.
    """
    from huggingface_hub import constants

    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    info = with_retries(
        lambda: _api().dataset_info(repo, revision=revision, timeout=seconds),
        f"datasets/{repo}",  # as its page is called
    )
    return str(info.sha)


def _listing(reference: str, repo: str, revision: str) -> tuple[str, dict[str, tuple[int, str]]]:
    """Return the commit of a revision, and size and digest (see `has_digest`) of its files by name."""
    from huggingface_hub import constants

    seconds = constants.HF_HUB_DOWNLOAD_TIMEOUT
    info = with_retries(
        lambda: _api().model_info(repo, revision=revision, files_metadata=True, timeout=seconds),
        reference,
        hint=f"; if a folder is meant, there is none at {Path(repo).absolute()}",
    )
    listed = {
        file.rfilename: (file.size, file.lfs.sha256 if file.lfs else str(file.blob_id))
        for file in info.siblings or []
        if "/" not in file.rfilename and file.size
    }
    return str(info.sha), listed


def _api() -> HfApi:
    from huggingface_hub import HfApi, constants

    return HfApi(endpoint=constants.ENDPOINT, token=token())


def _weights(reference: str, names: set[str], here: Callable[[str], Path]) -> tuple[list[str], str]:
    """Return the files that hold the weights, with their index, and the config that goes with them."""
    try:
        found = choose(names, lambda index: indexed_files(here(index)))
    except Refusal as refusal:
        raise Refusal(f"{reference}: {refusal}") from None
    if found is None or not names.issuperset({*found.files, found.config}):
        raise Refusal(
            f"{reference}: holds no whole checkpoint (config.json and safetensors or .bin weights, or a "
            "LoRA adapter); choose another repository"
        )
    return [*([found.listing] if found.listing else []), *found.files], found.config


def _remote_header(repo: str, commit: str, name: str) -> dict[str, list[Any]]:
    """Return name -> [dtype, shape] of the tensors of a safetensors file on the hub."""
    from huggingface_hub.errors import SafetensorsParsingError

    def header() -> Any:
        return _api().parse_safetensors_file_metadata(repo, name, revision=commit)

    try:
        found = with_retries(header, repo).tensors
    except SafetensorsParsingError:
        raise Refusal(f"{repo}: {name} has no safetensors header") from None
    return {tensor: [info.dtype, list(info.shape)] for tensor, info in sorted(found.items())}
