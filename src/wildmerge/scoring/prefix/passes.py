"""Forward passes over a prefix tree, as flat arrays that can be stored and run for many models.

A pass feeds some nodes of the tree to the model at once. Its nodes stand in depth-first order, so
that a node's descendants follow it without a gap: node j is an ancestor of node i, or i itself,
exactly if j <= i <= last_descendant[j]. Reads say which nodes' predictions are wanted, and of which
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from wildmerge.scoring.prefix.requests import TokenRequests


@dataclass(frozen=True)
class Pass:
    """One forward pass; t nodes after `cached` tokens that are in the cache, r reads.

    Attributes:
        cached: Tokens of the shared prefix, seen by every node; the pass's slots begin behind them.
        tokens: int32 (t,).
        positions: int32 (t,), distance from the beginning of the request.
        last_descendant: int32 (t,), index of the last node below this one, or its own.
        read_node: int32 (r,), ascending: the node whose prediction is read.
        read_target: int32 (r,), the token whose log-probability is read there.
        finished: Number of requests whose last read is in this pass.
    """

    cached: int
    tokens: np.ndarray
    positions: np.ndarray
    last_descendant: np.ndarray
    read_node: np.ndarray
    read_target: np.ndarray
    finished: int


@dataclass(frozen=True)
class ScoringPlan:
    """All passes that score a list of requests, one after the other in flat arrays.

    Attributes:
        cached, finished: int64 (passes,), as in `Pass`.
        node_bounds, read_bounds: int64 (passes + 1,), where each pass's nodes and reads lie.
        tokens, positions, last_descendant: int32 (nodes,).
        read_node, read_target: int32 (reads,).
        read_question: int32 (reads,), the distinct request that a read belongs to.
        question_of_request: int32 (requests,), the distinct request that a request equals.
        counts: int64 (3,): tokens of a naive run, tokens lm-eval `hf` runs, truncated requests.
    """

    cached: np.ndarray
    finished: np.ndarray
    node_bounds: np.ndarray
    read_bounds: np.ndarray
    tokens: np.ndarray
    positions: np.ndarray
    last_descendant: np.ndarray
    read_node: np.ndarray
    read_target: np.ndarray
    read_question: np.ndarray
    question_of_request: np.ndarray
    counts: np.ndarray

    def __iter__(self) -> Iterator[Pass]:
        nodes, reads = self.node_bounds.tolist(), self.read_bounds.tolist()
        for index, (cached, finished) in enumerate(
            zip(self.cached.tolist(), self.finished.tolist(), strict=True)
        ):
            node, read = slice(*nodes[index : index + 2]), slice(*reads[index : index + 2])
            yield Pass(
                cached,
                self.tokens[node],
                self.positions[node],
                self.last_descendant[node],
                self.read_node[read],
                self.read_target[read],
                finished,
            )

    @property
    def slots(self) -> int:
        """Return the cache slots that the passes need."""
        return int((self.cached + np.diff(self.node_bounds)).max(initial=0))

    def scores(self, logprobs: np.ndarray, greedy: np.ndarray) -> list[tuple[float, bool]]:
        """Sum the reads of every request.

        Args:
            logprobs: float (reads,), log-probability of each read's target.
            greedy: bool (reads,), whether the target was the most probable token.

        Returns:
            Log-likelihood and greediness of each request, in the order they were asked.
        """
        count = int(self.question_of_request.max(initial=-1)) + 1
        total = np.bincount(self.read_question, weights=logprobs, minlength=count)
        missed = np.bincount(self.read_question, weights=~greedy, minlength=count)
        return [
            (float(total[index]), not missed[index]) for index in self.question_of_request.tolist()
        ]


class PassBuilder:
    """Collects passes over sorted inputs; `finish` returns them as one plan.

    Args:
        inputs: Distinct inputs in sorted order.
        shared: int64 (n,), prefix that each shares with the one before.
        requests: The requests that the inputs come from.
        input_of_request: int64 (requests,), index into `inputs`.
    """

    def __init__(
        self,
        inputs: list[np.ndarray],
        shared: np.ndarray,
        requests: TokenRequests,
        input_of_request: np.ndarray,
    ) -> None:
        self._inputs = inputs
        self._shared = shared
        self._passes: list[Pass] = []
        self._read_questions: list[np.ndarray] = []
        # A request is known by its input, how many tokens it scores, and the last of them.
        known_by = (
            input_of_request,
            requests.continuation_lengths,
            requests.tokens[requests.bounds[1:] - 1],
        )
        questions, self._question_of_request, self._repeats = np.unique(
            np.stack(known_by, axis=1), axis=0, return_inverse=True, return_counts=True
        )
        self._last_token = questions[:, 2]
        self._end = np.array([len(inputs[index]) for index in questions[:, 0]], np.int64)
        self._begin = self._end - questions[:, 1]
        self._input = questions[:, 0]
        self._bounds = np.searchsorted(self._input, np.arange(len(inputs) + 1))

    def add_chain(self, first: int, last: int, start: int, stop: int) -> None:
        """Run tokens `start` to `stop` of what the inputs `first` to `last` - 1 share."""
        size = stop - start
        questions = np.arange(self._bounds[first], self._bounds[last])
        within = (self._begin[questions] < stop) & (self._end[questions] > start)
        nodes = np.arange(size)
        reads = [self._reads(q, start, stop, nodes) for q in questions[within]]
        positions = np.arange(start, stop)
        ends = np.full(size, size - 1)
        self._add(start, self._inputs[first][start:stop], positions, ends, reads)

    def add_pack(self, chosen: np.ndarray, cached: int) -> None:
        """Run what the chosen inputs have below depth `cached`, side by side."""
        path = np.empty(max(len(self._inputs[index]) for index in chosen) - cached, np.int64)
        tokens, positions, reads = [], [], []
        ends = np.empty(sum(len(self._inputs[index]) for index in chosen), np.int64)
        count = before = deepest = 0
        for index in chosen.tolist():
            sequence = self._inputs[index]
            # Inputs left out in between share at least as much as the two chosen ones do.
            shared = cached if not count else int(self._shared[before + 1 : index + 1].min())
            ends[path[shared - cached : deepest]] = count - 1  # nothing more comes below these
            deepest = len(sequence) - cached
            path[shared - cached : deepest] = np.arange(count, count + len(sequence) - shared)
            tokens.append(sequence[shared:])
            positions.append(np.arange(shared, len(sequence)))
            for question in range(self._bounds[index], self._bounds[index + 1]):
                reads.append(self._reads(question, cached, len(sequence), path))
            count, before = count + len(sequence) - shared, index
        ends[path[:deepest]] = count - 1
        self._add(cached, np.concatenate(tokens), np.concatenate(positions), ends[:count], reads)

    def _reads(self, question: int, start: int, stop: int, path: np.ndarray) -> np.ndarray:
        """Return (node, target, question) rows of what a request reads from `start` to `stop`."""
        begin, end = max(int(self._begin[question]), start), min(int(self._end[question]), stop)
        rows = np.empty((end - begin, 3), np.int64)
        rows[:, 0] = path[begin - start : end - start]
        targets = self._inputs[self._input[question]][begin + 1 : end + 1]
        rows[: len(targets), 1] = targets
        rows[len(targets) :, 1] = self._last_token[question]
        rows[:, 2] = question
        return rows

    def _add(
        self,
        cached: int,
        tokens: np.ndarray,
        positions: np.ndarray,
        ends: np.ndarray,
        reads: Sequence[np.ndarray],
    ) -> None:
        """Append one pass, its reads sorted by node."""
        rows = np.concatenate([np.empty((0, 3), np.int64), *reads])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        done = rows[positions[rows[:, 0]] == self._end[rows[:, 2]] - 1, 2]
        finished = int(self._repeats[done].sum())
        self._passes.append(Pass(cached, tokens, positions, ends, rows[:, 0], rows[:, 1], finished))
        self._read_questions.append(rows[:, 2])

    def finish(self, naive_tokens: int, grouped_tokens: int, truncated: int) -> ScoringPlan:
        """Return the plan of all passes added.

        Args:
            naive_tokens: Tokens a run would need that scores every request by itself.
            grouped_tokens: Tokens lm-eval `hf` runs, which scores equal inputs once.
            truncated: Requests cut to the model's context.
        """
        passes = self._passes

        def flat(name: str) -> np.ndarray:
            parts = [getattr(step, name) for step in passes]
            joined: np.ndarray = np.concatenate([np.empty(0, np.int32), *parts])
            return joined.astype(np.int32)

        arrays = {
            "cached": np.array([step.cached for step in passes], np.int64),
            "finished": np.array([step.finished for step in passes], np.int64),
            "node_bounds": np.cumsum([0, *(len(step.tokens) for step in passes)], dtype=np.int64),
            "read_bounds": np.cumsum(
                [0, *(len(step.read_node) for step in passes)], dtype=np.int64
            ),
            "read_question": np.concatenate([np.empty(0, np.int32), *self._read_questions]).astype(
                np.int32
            ),
            "question_of_request": self._question_of_request.reshape(-1).astype(np.int32),
            "counts": np.array([naive_tokens, grouped_tokens, truncated], np.int64),
        }
        names = {item.name for item in fields(ScoringPlan)} - arrays.keys()
        return ScoringPlan(**arrays, **{name: flat(name) for name in names})
