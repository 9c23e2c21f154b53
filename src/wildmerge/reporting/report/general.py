"""The report's general tables: a row a variant, and a row a checkpoint, as printed."""

from typing import NamedTuple

import pandas as pd

from wildmerge.reporting.appearance import variant_label
from wildmerge.reporting.printing import UNKNOWN, signed
from wildmerge.reporting.report.page import Value
from wildmerge.reporting.tables.study import Tables
from wildmerge.statistics.estimates import above
from wildmerge.statistics.of_sizes import SIZE
from wildmerge.statistics.rows import GAIN, LOSS, UNDECIDED

SHOWN_DIGITS = 23  # of a revision: "sha256:" and 16 digits, or the first digits of a commit


class GeneralRow(NamedTuple):
    """A variant over all sizes: its difference to each base at the largest size, and its verdicts."""

    label: str
    differences: list[Value]  # one a base, then the mean over bases where there are several
    above_base: str
    beat_every_expert: str
    verdicts: str  # "3 / 1 of 6": gains and losses among its means


class GeneralTable(NamedTuple):
    """All variants at the largest size that all of them have."""

    n: int
    columns: list[str]
    rows: list[GeneralRow]


class CheckpointRow(NamedTuple):
    """A base or expert: where its weights come from."""

    base: str
    expert: str
    source: str
    revision: str
    licence: str


def general_table(tables: Tables) -> GeneralTable:
    """Return a row a variant: how it did over all sizes, and by how much at the largest one."""
    compared = tables.comparisons
    against = compared[(compared["what"] == SIZE) & (compared["reference"] == "base")]
    against = against[(against["label"] == "") & (against["n"] > 1)]
    n = int(against["n"].max())
    bases = list(against.loc[~against["is_average"], "base"].unique())
    rows = [
        _general_row(tables, compared, n, bases)
        for _, compared in against.groupby("variant", sort=False)
    ]
    return GeneralTable(n, bases + (["mean over bases"] if len(bases) > 1 else []), rows)


def _general_row(tables: Tables, compared: pd.DataFrame, n: int, bases: list[str]) -> GeneralRow:
    """One variant, from its comparisons with the bases and their mean at every size."""
    variant, method = str(compared["variant"].iat[0]), str(compared["method"].iat[0])
    models = tables.models[tables.models["variant"] == variant]
    over = int(above(models["accuracy"], models["base_accuracy"]).sum())
    beat = int((models["delta_every_expert_verdict"] == GAIN).sum())
    is_average, largest = compared["is_average"], compared["n"] == n
    cells = [compared[~is_average & largest & (compared["base"] == base)] for base in bases]
    if len(bases) > 1:
        cells.append(compared[is_average & largest])
    verdicts = compared.loc[~is_average, "verdict"]
    return GeneralRow(
        variant_label(variant, method),
        [_interval(cell) for cell in cells],
        f"{over} of {len(models)}",
        f"{beat} of {len(models)}",
        f"{(verdicts == GAIN).sum()} / {(verdicts == LOSS).sum()} of {len(verdicts)}",
    )


def _interval(cell: pd.DataFrame) -> Value:
    """Return the one comparison of a cell as "+1.80 (+0.40 to +3.20)"; a dash where there is none."""
    if cell.empty:
        return Value(UNKNOWN, UNDECIDED)
    row = cell.iloc[0]
    low, high = signed(row["low_points"], 1), signed(row["high_points"], 1)
    return Value(f"{signed(row['estimate_points'], 1)} ({low} to {high})", row["verdict"])


def checkpoint_rows(tables: Tables) -> list[CheckpointRow]:
    """Return the study's bases and experts with their sources."""
    return [
        CheckpointRow(row.base, row.expert, row.source, row.revision[:SHOWN_DIGITS], row.licence)
        for row in tables.checkpoints.itertuples()
    ]
