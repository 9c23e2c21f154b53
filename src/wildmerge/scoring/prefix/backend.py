"""The `prefix` backend: an lm-eval model that computes each distinct prefix of a benchmark once.

`PrefixLM` asks a Hugging Face causal language model the same requests, token for token, as
lm-eval's `hf` backend, and returns the same scores; models that cannot be scored through a prefix
tree are scored by that backend itself. Generation and everything else is inherited.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from wildmerge.errors import Refusal
from wildmerge.scoring.prefix.memory import pass_costs
from wildmerge.scoring.prefix.packable import why_not_packable
from wildmerge.scoring.prefix.passes import ScoringPlan
from wildmerge.scoring.prefix.request_tree import RequestTree, plan_passes
from wildmerge.scoring.prefix.requests import (
    TokenRequests,
    digest_of_texts,
    digest_of_tokenizer,
    tokenise,
)
from wildmerge.scoring.prefix.store import ArrayStore
from wildmerge.scoring.prefix.tree_attention import run_plan

logger = logging.getLogger(__name__)

Score = tuple[float, bool]


@dataclass
class TokenCounts:
    """Tokens that scoring took so far, and what it would have taken.

    Attributes:
        requests: Requests asked.
        truncated: Requests cut on the left to the model's context.
        naive: Tokens of a run that scores each request by itself.
        grouped: Tokens of lm-eval's `hf` backend, which scores equal inputs once (padding not
            counted).
        computed: Tokens that were run.
    """

    requests: int = 0
    truncated: int = 0
    naive: int = 0
    grouped: int = 0
    computed: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return TokenCounts(*(first + second for first, second in pairs))


class PrefixLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
    """lm-eval's Hugging Face model, with log-likelihoods scored through a prefix tree.

    Args:
        pretrained: Model directory, hub id or a loaded model, as for `HFLM`.
        memory_budget: Bytes for the tokens of a pass, see `prefix.memory`; None takes the constant
            of the kind of device.
        store: Folder in which tokenised requests and plans are kept for the next model; None keeps
            none.
        on_scored: Called with the number of requests that were completed since the last call;
            without it, lm-eval's own kind of progress bar is shown.
        options: All other arguments of `HFLM` (tokenizer, dtype, device, batch_size, max_length,
            ...).

    Attributes:
        counts: Tokens so far; set a new `TokenCounts()` to start again.
        fallback_reason: Why the model is scored by the `hf` backend's own method; None if it is
            not.
    """

    def __init__(
        self,
        pretrained: Any,
        *,
        memory_budget: int | None = None,
        store: str | os.PathLike[str] | None = None,
        on_scored: Callable[[int], None] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(pretrained, **options)
        self._budget = memory_budget
        self._store = ArrayStore(store)
        self._tokenizer_digest = digest_of_tokenizer(self) if store is not None else None
        self.on_scored = on_scored
        self.counts = TokenCounts()
        self.fallback_reason = why_not_packable(self.model)
        if self.fallback_reason:
            logger.warning(
                "scored without prefix sharing, by the hf backend: %s", self.fallback_reason
            )

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Score]:
        """Return log-likelihood and greediness of each request, as lm-eval's `LM` defines."""
        texts = [request.args for request in requests]
        key = None
        if self._tokenizer_digest is not None:
            key = [self._tokenizer_digest, digest_of_texts(texts)]
        tokenised = self._store.get(TokenRequests, key, lambda: tokenise(self, texts))
        scores = self._score(tokenised, key, disable_tqdm)
        for text, score in zip(texts, scores, strict=True):
            self.cache_hook.add_partial("loglikelihood", text, score)
        return scores

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[Score]:
        """Score requests that are tokens already, as those of rolling log-likelihoods are."""
        tokenised = TokenRequests.from_pairs(request[1:] for request in requests)
        return self._score(tokenised, None, disable_tqdm)

    def _score(self, requests: TokenRequests, key: Any, quiet: bool) -> list[Score]:
        """Score tokenised requests through the tree, or as the `hf` backend does."""
        if requests.continuation_lengths.max(initial=0) > self.max_length:
            raise Refusal(
                f"a continuation of {requests.continuation_lengths.max()} tokens is longer than "
                f"the model's context of {self.max_length} tokens; leave the document out"
            )
        if self.fallback_reason:
            return self._score_plainly(requests, quiet)
        plan = self._plan(requests, key)
        naive, grouped, truncated = plan.counts.tolist()
        self.counts += TokenCounts(len(requests), truncated, naive, grouped, len(plan.tokens))
        with tqdm(total=len(requests), disable=quiet or self.on_scored is not None) as bar:
            return run_plan(self.model, plan, self.on_scored or bar.update)

    def _plan(self, requests: TokenRequests, key: Any) -> ScoringPlan:
        """Return the passes that score these requests."""
        longest = min(requests.longest() - 1, self.max_length)
        costs = pass_costs(self.model, longest, self._budget)
        made_from = key and [key, self.max_length, asdict(costs)]
        return self._store.get(
            ScoringPlan, made_from, lambda: plan_passes(requests, self.max_length, costs)
        )

    def _score_plainly(self, requests: TokenRequests, quiet: bool) -> list[Score]:
        """Score by lm-eval's own method, which runs equal inputs once."""
        tree = RequestTree(requests, self.max_length)
        grouped = int(tree.lengths.sum())
        counts = TokenCounts(len(requests), tree.truncated, tree.naive_tokens, grouped, grouped)
        self.counts += counts
        pairs = [(None, context, continuation) for context, continuation in requests.pairs()]
        scores: list[Score] = super()._loglikelihood_tokens(
            pairs, disable_tqdm=quiet or self.on_scored is not None
        )
        if self.on_scored:
            self.on_scored(len(scores))
        return scores
