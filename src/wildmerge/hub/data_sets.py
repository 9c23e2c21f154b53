"""Single files of a commit of a data set of the hub."""

from __future__ import annotations

from pathlib import Path


def data_file(name: str, commit: str, file: str) -> Path:
    """Return a file of a data set in the hub's cache, downloaded where it is not there yet.

    Raises:
        Refusal: the file cannot be had.
    """
    from huggingface_hub import hf_hub_download

    from wildmerge.hub.retries import token, with_retries

    def download() -> str:
        return hf_hub_download(name, file, repo_type="dataset", revision=commit, token=token())

    return Path(with_retries(download, f"datasets/{name}"))
