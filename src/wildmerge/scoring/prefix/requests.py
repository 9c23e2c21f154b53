"""Log-likelihood requests as token arrays: exactly the tokens that lm-eval's `hf` backend uses.

A request is a context and a continuation; its score is the log-probability of the continuation's
tokens. This module tokenises the text of many requests at once (each distinct string once) and
holds the result as flat arrays that can be stored without pickle.

Source of the tokenisation rules: lm-eval 0.4.13, `TemplateLM.loglikelihood`,
`TemplateLM._encode_pair` and `HFLM.tok_encode`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wildmerge.errors import Refusal

if TYPE_CHECKING:
    from lm_eval.models.huggingface import HFLM

Tokens = Sequence[int] | np.ndarray

ENCODING_BATCH = 1024  # strings handed to the tokenizer at a time: bounds memory, keeps it parallel


@dataclass(frozen=True)
class TokenRequests:
    """Tokenised requests, in the order they were asked.

    Attributes:
        tokens: int32 (total,), context then continuation of every request, one after the other.
        bounds: int64 (n + 1,), request i is `tokens[bounds[i]:bounds[i + 1]]`.
        continuation_lengths: int32 (n,), how many of its last tokens are scored.
    """

    tokens: np.ndarray
    bounds: np.ndarray
    continuation_lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.continuation_lengths)

    @classmethod
    def from_pairs(cls, pairs: Iterable[tuple[Tokens, Tokens]]) -> TokenRequests:
        """Collect (context tokens, continuation tokens) pairs.

        Raises:
            Refusal: a context or a continuation has no token, so there is nothing to score.
        """
        sequences, lengths = [], []
        for index, (context, continuation) in enumerate(pairs):
            if not len(context) or not len(continuation):
                part = "continuation" if len(context) else "context"
                raise Refusal(
                    f"request {index} has a {part} without tokens: "
                    "correct the task's choices, or leave the document out"
                )
            sequences += [np.asarray(context, np.int32), np.asarray(continuation, np.int32)]
            lengths.append(len(continuation))
        tokens = np.concatenate([np.empty(0, np.int32), *sequences])
        bounds = np.cumsum([0, *map(len, sequences)], dtype=np.int64)[::2]
        return cls(tokens, bounds, np.array(lengths, np.int32))

    def pairs(self) -> Iterator[tuple[list[int], list[int]]]:
        """Yield (context tokens, continuation tokens) of every request."""
        for index, length in enumerate(self.continuation_lengths):
            sequence = self.tokens[self.bounds[index] : self.bounds[index + 1]].tolist()
            yield sequence[: len(sequence) - length], sequence[len(sequence) - length :]

    def longest(self) -> int:
        """Return the number of tokens of the longest request, its last one included."""
        return int(np.diff(self.bounds).max(initial=0))


def tokenise(lm: HFLM, texts: Sequence[tuple[str, str]]) -> TokenRequests:
    """Tokenise (context, continuation) texts as lm-eval's `hf` backend does, token for token.

    Args:
        lm: The lm-eval model whose tokenizer and special-token settings apply.
        texts: Contexts and continuations, as lm-eval's tasks make them.

    Returns:
        The requests in the same order.

    Raises:
        Refusal: A continuation has no token.
    """
    alone = _encode_distinct(lm, (end for start, end in texts if not start), special=False)
    splits = [_move_trailing_spaces(start, end) for start, end in texts if start]
    joined = _encode_distinct(
        lm, (text for start, end in splits for text in (start, start + end)), special=None
    )

    def pair(context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
        if context:
            context, continuation = _move_trailing_spaces(context, continuation)
            start = joined[context]
            return start, joined[context + continuation][len(start) :]
        encoded = alone[continuation]
        if len(encoded) and encoded[0] == lm.prefix_token_id:  # it has a start token of its own
            return encoded[:1], encoded[1:]
        return np.array([lm.prefix_token_id], np.int32), encoded

    return TokenRequests.from_pairs(pair(*text) for text in texts)


def digest_of_texts(texts: Sequence[tuple[str, str]]) -> str:
    """Return a SHA-256 that no two different lists of (context, continuation) texts share."""
    digest = hashlib.sha256()
    for text in (text for pair in texts for text in pair):
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def digest_of_tokenizer(lm: HFLM) -> str | None:
    """Return a SHA-256 of everything that decides how `lm` turns text into tokens.

    None for a tokenizer written in Python, whose rules cannot be read off: its tokens are not
        stored.
    """
    backend = getattr(lm.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    rules = [
        type(lm.tokenizer).__name__,
        backend.to_str(),
        lm.add_bos_token,
        lm.prefix_token_id,
        getattr(lm.tokenizer, "split_special_tokens", None),
    ]
    return hashlib.sha256(json.dumps(rules).encode()).hexdigest()


def _move_trailing_spaces(context: str, continuation: str) -> tuple[str, str]:
    """Give the spaces at the end of a context to its continuation, where tokenizers expect them."""
    stripped = context.rstrip()
    return stripped, context[len(stripped) :] + continuation


def _encode_distinct(
    lm: HFLM, texts: Iterable[str], *, special: bool | None
) -> dict[str, np.ndarray]:
    """Encode each distinct text once; `special` is lm-eval's `add_special_tokens`."""
    start = lm.tokenizer.decode(lm.prefix_token_id)
    by_flag: dict[bool | None, list[str]] = {}
    for text in dict.fromkeys(texts):
        flag = lm.add_bos_token if special is None else special
        if special is None and text.startswith(start):
            flag = False  # the text already begins with the start token
        by_flag.setdefault(flag, []).append(text)
    encoded = {}
    for flag, group in by_flag.items():
        options = {} if flag is None else {"add_special_tokens": flag}
        for first in range(0, len(group), ENCODING_BATCH):
            batch = group[first : first + ENCODING_BATCH]
            for text, tokens in zip(
                batch, lm.tokenizer(batch, **options)["input_ids"], strict=True
            ):
                encoded[text] = np.array(tokens, np.int32)
    return encoded
