"""What a benchmark asks, item by item: all that its models share, known before any is scored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

HASH_DIGITS = 16
"""Of the 64 of a SHA-256."""
QUESTIONS = ("question", "Question", "question_stem", "qtext", "query", "goal", "sentence", "input")
"""The usual names of the field of a document that holds the question without its choices."""
CONTEXTS = ("passage", "context", "paragraph", "article", "story", "premise")
"""The usual names of what a question is about, without which it is another question."""
EXAM = ("name", "qid")
"""HEAD-QA's exam and number: its questions are the same in both languages, their words are not."""


class Item(NamedTuple):
    """One item as all models are asked it.

    Attributes:
        task: the task of a group that it is of.
        doc_hash: the first 16 digits of lm-eval's SHA-256 of the document.
        question: 16 hex digits, the same for items that ask one question.
        gold: the numbers of the right choices; empty where the item has no choices, or its task's own
            code decides what is right.
        choices: how many there are; 0 where a given text is scored alone.
        gold_bytes: of the text whose log-likelihood is the gold answer's, in UTF-8; of several right
            choices the first; 0 where it is not known.
    """

    task: str
    doc_hash: str
    question: str
    gold: tuple[int, ...]
    choices: int
    gold_bytes: int


@dataclass(frozen=True)
class Asked:
    """All that a benchmark asks.

    Attributes:
        documents: 16 hex digits of documents, choices and answers; the order of items and choices is
            part of it.
        items: of all its tasks, in the order of the tasks' names.
    """

    documents: str
    items: tuple[Item, ...] = field(repr=False)


def asked_of(task: Any, document: Any) -> tuple[list[str] | None, Any]:
    """Return an item's choices, None where it has none, and its answer as lm-eval finds it."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None, task.doc_to_target(document)
    # with several contexts and one continuation the text is the number of the right one
    answer = (task.doc_to_text if task.multiple_input else task.doc_to_target)(document)
    return list(task.doc_to_choice(document)), answer


def item_of(name: str, task: Any, document: Any, choices: list[str] | None, answer: Any) -> Item:
    """Return an item.

    Args:
        name: of the task.
        task: lm-eval's.
        document: of the task's data.
        choices: see `asked_of`.
        answer: likewise.
    """
    gold = () if choices is None else _right_choices(choices, answer)
    if choices is None:
        text = str(answer)
    elif task.multiple_input:
        text = str(task.doc_to_target(document))
    else:
        text = choices[gold[0]] if gold else ""
    digest = _document_hash(document)
    question = question_of(document)
    if question is None and isinstance(prompt := task.doc_to_text(document), str):
        question = prompt
    shared = digest if question is None else hash_of_question(question)
    return Item(name, digest, shared, gold, len(choices or ()), len(text.encode()))


def hash_of_question(text: str) -> str:
    """Return 16 hex digits of a question's text; case and blanks do not count."""
    folded = " ".join(text.casefold().split())
    return hashlib.sha256(folded.encode()).hexdigest()[:HASH_DIGITS]


def question_of(document: Any) -> str | None:
    """Return the text by which a document's question is known, from the usual names of fields."""
    if not isinstance(document, Mapping):
        return None
    if "qtext" in document and all(key in document for key in EXAM):
        return " ".join(str(document[key]) for key in EXAM)
    for key in QUESTIONS:
        if isinstance(question := document.get(key), str):
            about = [document[c] for c in CONTEXTS if isinstance(document.get(c), str)]
            return "\n".join([*about, question])
    return None


def _right_choices(choices: list[str], answer: Any) -> tuple[int, ...]:
    """Return the numbers of the right choices; lm-eval takes a choice's number, text, or a list."""
    answers = answer if isinstance(answer, list) else [answer]
    numbers = [choices.index(a) if isinstance(a, str) and a in choices else a for a in answers]
    known = {n for n in numbers if isinstance(n, int) and 0 <= n < len(choices)}
    return tuple(sorted(known))


def _document_hash(document: Any) -> str:
    """Return the beginning of the hash that lm-eval writes beside each sample."""
    from lm_eval.utils import handle_non_serializable, hash_string

    text = json.dumps(document, indent=2, default=handle_non_serializable, ensure_ascii=False)
    return str(hash_string(text))[:HASH_DIGITS]
