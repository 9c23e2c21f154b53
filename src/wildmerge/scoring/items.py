"""Items on disk, as Parquet: a model's answers, and what all models share of a benchmark.

`evals/<model>/<task>-<evaluation>.parquet` has a row an item and these columns:

    one a metric   boolean where all values are 0 or 1, else float64
    gold, other    float32: log-likelihood of the right choice (the best of several) and of the best
                   other; missing where there is none

`items/<evaluation>.parquet` has the same rows: doc_hash, question (16 hex digits each, see
`tasks.questions`), task, choices, gold_bytes; the digest of the documents stands in its metadata.
Files follow from their content byte by byte, and pages carry checksums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from wildmerge.errors import Refusal
from wildmerge.storage.files import write_atomically
from wildmerge.tasks.questions import Asked

Values = NDArray[np.int8] | NDArray[np.float64]
LIKELIHOODS = ("gold", "other")
AGAIN = "remove it and run again"
SAME_SCORE = 1e-9
_COLUMNS = {
    "doc_hash": pa.string(),
    "question": pa.string(),
    "task": pa.string(),
    "choices": pa.int32(),
    "gold_bytes": pa.int32(),
}
_DIGEST = b"documents"


@dataclass(frozen=True)
class Items:
    """What all models share of a benchmark's items; every array is of shape (items,).

    Attributes:
        documents: the digest of documents, choices and answers.
        doc_hash: 16 hex digits a document.
        question: 16 hex digits, the same for items that ask one question.
        task: of a group, the task that an item is of.
        choices: how many there are; 0 where a given text is scored alone.
        gold_bytes: of the right answer's text.
    """

    documents: str
    doc_hash: list[str]
    question: list[str]
    task: list[str]
    choices: NDArray[np.int32]
    gold_bytes: NDArray[np.int32]

    def clusters(self) -> NDArray[np.int64] | None:
        """Return which items ask one question, see `clusters_of`."""
        return clusters_of(self.question)


def clusters_of(questions: Sequence[str]) -> NDArray[np.int64] | None:
    """Return a number an item, the same for items that ask one question; None if none do."""
    found, numbers = np.unique(questions, return_inverse=True)
    return numbers.astype(np.int64) if len(found) < len(questions) else None


# --- a model's answers ----------------------------------------------------------------------------


def write_answers(
    path: Path,
    values: Mapping[str, Sequence[float]],
    gold: Sequence[float],
    other: Sequence[float],
) -> Path:
    """Write one model's answers to a benchmark, atomically.

    Args:
        path: the file.
        values: of each metric, an item's value each.
        gold: log-likelihood of the right choice, in nats; NaN where it is not known.
        other: log-likelihood of the best other choice; NaN where there is none.
    """
    columns = {metric: _column(each) for metric, each in values.items()}
    for name, likelihoods in zip(LIKELIHOODS, (gold, other), strict=True):
        single = np.asarray(likelihoods, np.float32)
        columns[name] = pa.array(single, from_pandas=True)  # NaN is a missing value
    return _write(path, pa.table(columns))


def read_values(path: Path, metric: str, count: int, score: float) -> Values:
    """Read one metric's values, and no other column.

    Args:
        path: of the answers.
        metric: whose values.
        count: how many the result has.
        score: their mean, as the result says.

    Returns:
        (items,), int8 where all are 0 or 1, else float64.

    Raises:
        Refusal: names the file, which cannot be read or is not of that result.
    """
    (column,) = _read(path, [metric]).columns
    values = column.to_numpy()
    if len(values) != count:
        raise Refusal(f"{path}: has {len(values)} items and its result {count}; {AGAIN}")
    if abs(float(values.mean(dtype=np.float64)) - score) > SAME_SCORE:
        raise Refusal(f"{path}: the mean of {metric} is not the result's score; {AGAIN}")
    values = values.astype(np.int8 if values.dtype == np.bool_ else np.float64)
    return values  # type: ignore[no-any-return]


def read_likelihoods(path: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Read the log-likelihoods of the right choices and of the best others, (items,), NaN for none.

    Raises:
        Refusal: names the file, which cannot be read.
    """
    gold, other = (column.to_numpy() for column in _read(path, list(LIKELIHOODS)).columns)
    return gold.astype(np.float32), other.astype(np.float32)


def _column(values: Sequence[float]) -> Any:
    array = np.asarray(values, np.float64)
    return pa.array(array.astype(np.bool_) if np.isin(array, (0, 1)).all() else array)


# --- what all models share ------------------------------------------------------------------------


def share_items(path: Path, asked: Asked) -> None:
    """Write a benchmark's items once for all models, or compare them with those that were written.

    Raises:
        Refusal: earlier models were asked something else, or the file cannot be read.
    """
    if not path.exists():
        write_items(path, asked)
        return
    there = _digest(_read(path, []), path)
    if there != asked.documents:
        raise Refusal(
            f"{path}: models were asked other items before (digest {there}, now {asked.documents}), "
            "so the benchmark's data changed; restore the data, or remove this file and the results "
            f"evals/*/*-{path.stem}.* beside it"
        )


def write_items(path: Path, asked: Asked) -> Path:
    """Write a benchmark's items, atomically."""
    columns = {
        name: pa.array([getattr(item, name) for item in asked.items], kind)
        for name, kind in _COLUMNS.items()
    }
    table = pa.table(columns).replace_schema_metadata({_DIGEST: asked.documents})
    return _write(path, table)


def read_items(path: Path) -> Items:
    """Read what all models share of a benchmark's items.

    Raises:
        Refusal: there is no such file, or it cannot be read.
    """
    table = _read(path, list(_COLUMNS))
    text = {name: table[name].to_pylist() for name in ("doc_hash", "question", "task")}
    numbers = {name: table[name].to_numpy() for name in ("choices", "gold_bytes")}
    return Items(documents=_digest(table, path), **text, **numbers)


def _digest(table: Any, path: Path) -> str:
    try:
        return str(table.schema.metadata[_DIGEST].decode())
    except (TypeError, KeyError, UnicodeDecodeError):
        raise Refusal(f"{path}: no digest of its documents; {AGAIN}") from None


# --- Parquet --------------------------------------------------------------------------------------


def _write(path: Path, table: Any) -> Path:
    """Write a table so that the same rows are the same bytes, as small as they get."""
    floats = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    texts = [field.name for field in table.schema if field.type == pa.string()]
    stream = pa.BufferOutputStream()
    pq.write_table(
        table,
        stream,
        compression="zstd",
        compression_level=9,
        use_dictionary=texts,
        use_byte_stream_split=floats,  # exponents together: a fifth smaller
        write_statistics=False,
        store_schema=bool(table.schema.metadata),  # 500 bytes, without which there is no digest
        write_page_checksum=True,
    )
    return write_atomically(path, stream.getvalue().to_pybytes())


def _read(path: Path, columns: list[str]) -> Any:
    """Read some columns; whatever is wrong with a file is one line that names it."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read(columns)
    except FileNotFoundError:
        raise Refusal(f"{path}: missing; run again") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise Refusal(f"{path}: cannot be read as Parquet ({reason}); {AGAIN}") from None
    if lacking := sorted({*columns}.difference(table.column_names)):
        raise Refusal(f"{path}: no column {lacking[0]!r}; {AGAIN}")
    return table
