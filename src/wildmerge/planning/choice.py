"""Which study a run of the workflow is of, by what snakemake was given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wildmerge.errors import Refusal, unknown
from wildmerge.validation import read_yaml

KEYS = ("study", "bases", "limit", "scratch")
"""What `--config` can set."""


@dataclass(frozen=True)
class Choice:
    """A study file, the bases of it that matter (None: all) and a limit of items (None: as written)."""

    file: str
    bases: list[str] | None
    limit: Any


def choose_study(config: Mapping[str, Any], files: Sequence[str]) -> Choice:
    """Read the options of a run: `--config study=FILE`, or `--configfile FILE` with the study itself.

    Args:
        config: what snakemake made of both.
        files: those given as `--configfile`.

    Raises:
        Refusal: no study, or two; a key of `--config` that does nothing.
    """
    if len(files) > 1:
        raise Refusal(
            f"--configfile: {', '.join(map(str, files))} are {len(files)} studies; give one"
        )
    content = read_yaml(files[0]) if files else {}
    content = content if isinstance(content, dict) else {}
    for key in config:
        if key not in KEYS and key not in content:
            raise Refusal(f"--config: {unknown('key', key, KEYS)}")
        if key not in KEYS and config[key] != content[key]:
            raise Refusal(f"--config {key}=...: does nothing; write it into {files[0]}")
    return Choice(_file(config, content, files), _bases(config.get("bases")), config.get("limit"))


def _file(config: Mapping[str, Any], content: Mapping[str, Any], files: Sequence[str]) -> str:
    named = config.get("study")
    if named is None and files:
        return os.path.relpath(files[0])
    if not isinstance(named, str) or not named:
        raise Refusal(
            "no study given; run `snakemake --config study=FILE` with your study file "
            "(study=config/demo.yaml is the demo)"
        )
    if files and "study" not in content and not os.path.samefile(named, files[0]):
        raise Refusal(
            f"--config study={named} and --configfile {files[0]} name two studies; give one"
        )
    return named


def _bases(given: Any) -> list[str] | None:
    """Return the names of `--config bases=[A,B]`; a study's own bases choose none."""
    if not given or isinstance(given, dict):
        return None
    return given.split(",") if isinstance(given, str) else [str(name) for name in given]
