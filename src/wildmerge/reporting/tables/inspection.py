"""What the study's experts look like before anything is merged: inspection, geometry, cosines.

Reads results/<study>/inspect and results/<study>/geometry, which the workflow writes; a study without
them has empty tables.
"""

from pathlib import Path

import pandas as pd

EXPERTS = ["base", "expert", "merges", "distance", "relative", "remarks", "refusal"]
GEOMETRY = ["base", "measure", "expert", "other", "part", "number", "measured_on"]
PAIRS = ["base", "expert", "other", "cosine"]


def inspection_table(folder: Path, bases: list[str]) -> pd.DataFrame:
    """A row an expert: does it merge, how far is it from its base, what was left out of it."""
    found = [
        pd.read_csv(path, dtype=str, keep_default_na=False).assign(base=base)
        for base in bases
        if (path := folder / f"{base}.csv").is_file()
    ]
    table = pd.concat(found) if found else pd.DataFrame(columns=EXPERTS, dtype=str)
    numbers = {name: pd.to_numeric(table[name]) for name in ("distance", "relative")}
    return table.assign(**numbers)[EXPERTS].reset_index(drop=True)


def geometry_table(folder: Path, bases: list[str]) -> pd.DataFrame:
    """A row a measure of a base, an expert or two of them, in a part of the model."""
    found = [
        pd.read_csv(path, dtype=str, keep_default_na=False).assign(base=base)
        for base in bases
        if (path := folder / f"{base}.csv").is_file()
    ]
    table = pd.concat(found) if found else pd.DataFrame(columns=GEOMETRY, dtype=str)
    numbers = pd.to_numeric(table["number"]).astype(float)
    return table.assign(number=numbers)[GEOMETRY].reset_index(drop=True)


def cosine_table(geometry: pd.DataFrame) -> pd.DataFrame:
    """A row a pair of experts of a base: the cosine between their task vectors, of all weights."""
    rows = geometry[(geometry["measure"] == "cosine") & (geometry["part"] == "all")]
    return rows.rename(columns={"number": "cosine"})[PAIRS].reset_index(drop=True)
