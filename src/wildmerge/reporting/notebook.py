"""A notebook, executed on a study: it knows its own study, also when it is opened and run again."""

import json
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from wildmerge.errors import Refusal
from wildmerge.storage.files import write_atomically

PARAMETERS = "parameters"
"""The tag of the cell that says which tables are read."""


def execute_notebook(source: Path, tables: Path, out: Path) -> Path:
    """Execute a notebook on the tables of a study.

    The tables' place, relative to the new notebook's folder, replaces its cell tagged `parameters`; a
    notebook that is opened from that folder reads them again.

    Args:
        source: the notebook.
        tables: the directory of the study's tables.
        out: the executed notebook to write.

    Returns:
        The path of the executed notebook.

    Raises:
        Refusal: if the tables are missing, or the notebook has no such cell.
    """
    if not tables.is_dir():
        raise Refusal(f"no folder {tables}; make it with `wildmerge aggregate`")
    notebook = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    cells = [cell for cell in notebook.cells if PARAMETERS in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise Refusal(f"{source}: {len(cells)} cells are tagged '{PARAMETERS}'; tag one")
    out.parent.mkdir(parents=True, exist_ok=True)
    place = os.path.relpath(tables.resolve(), out.parent.resolve())
    cells[0].source = f"TABLES = {json.dumps(Path(place).as_posix())}"
    NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,  # so that the same tables give the same bytes
        resources={"metadata": {"path": str(out.parent)}},
    ).execute()
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return write_atomically(out, text + "\n")
