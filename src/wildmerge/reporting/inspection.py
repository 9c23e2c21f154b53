"""What `wildmerge inspect` found before the study merged anything, as two tables of the study.

Reads results/<study>/inspect, which the workflow writes before it merges; a study without it has empty
tables.
"""

from pathlib import Path

import pandas as pd

EXPERTS = ["base", "expert", "merges", "distance", "relative", "remarks", "refusal"]
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


def cosine_table(folder: Path, bases: list[str]) -> pd.DataFrame:
    """A row a pair of experts of a base: the cosine between their task vectors (sampled)."""
    rows = []
    for base in bases:
        path = folder / f"{base}+cosines.csv"
        if path.is_file():
            pairs = pd.read_csv(path, dtype=str, keep_default_na=False).reindex(columns=PAIRS[1:])
            rows += [(base, *pair) for pair in pairs.itertuples(index=False)]
    table = pd.DataFrame(rows, columns=PAIRS)
    return table.assign(cosine=table["cosine"].astype(float))
