"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")]
Bases = Annotated[
    str | None, typer.Option(metavar="NAME,...", help="These bases of the study only.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many items of every benchmark.")]
Results = Annotated[Path, typer.Option(help="Folder of the results.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:i, or auto: a GPU where there is one.")]
Threads = Annotated[int, typer.Option(min=1, help="Number of threads.")]
Done = Annotated[Path | None, typer.Option(help="Write this file when all is done.")]
StudyName = Annotated[str, typer.Option(help="Name of the study.")]
Tables = Annotated[Path, typer.Argument(metavar="TABLES", help="Folder of a study's tables.")]

RESULTS = Path("results")


def names(text: str | None) -> list[str] | None:
    """Return the names in a list such as "a,b"; None for none given."""
    return None if text is None else [name.strip() for name in text.split(",")]
