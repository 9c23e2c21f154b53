"""Requests as a prefix tree over tokens, and the forward passes that visit each node about once.

Requests of a benchmark repeat their beginnings: few-shot examples, a passage, a question before
each of its choices. Sorted by tokens they are the leaves of a prefix tree. `plan_passes` cuts it
into passes:

- a chain runs a prefix that many requests share, and leaves its keys and values in the cache;
- a pack runs the branches of several requests side by side, each seeing only its own ancestors.

A node's cache slot is its depth, and passes are ordered depth first, so one cache as long as the
longest request holds every prefix that is still needed. Pure numpy; the model side is in
`tree_attention`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from wildmerge.scoring.prefix.passes import PassBuilder, ScoringPlan
from wildmerge.scoring.prefix.requests import TokenRequests


@dataclass(frozen=True)
class PassCosts:
    """What a forward pass costs, in units of one token's matrix products; decides speed only.

    Attributes:
        per_pass: Fixed cost: reading the weights, launching kernels.
        per_pair: Cost of one (query, key) pair of attention, masked or not.
        max_tokens: Tokens that one pass may hold within the memory budget.
    """

    per_pass: float
    per_pair: float
    max_tokens: int

    @property
    def best_tokens(self) -> float:
        """Return the tokens a pass should have, where its fixed and quadratic costs balance."""
        return min(self.max_tokens, math.sqrt(self.per_pass / self.per_pair))


@dataclass
class Node:
    """A branching point: inputs `first` to `last` - 1 (in sorted order) share `depth` tokens."""

    depth: int
    first: int
    last: int
    children: list[Node] = field(default_factory=list)


class RequestTree:
    """Distinct inputs in the order of their tokens, and how much each shares with the one before.

    Attributes:
        inputs: Distinct token sequences fed to the model, sorted, each an int32 array.
        lengths: int64 (n,), their lengths.
        shared: int64 (n,), length of the prefix shared with the input before; 0 for the first.
        truncated: Number of requests cut on the left to the model's context.
        naive_tokens: Tokens that scoring every request by itself would run.
    """

    def __init__(self, requests: TokenRequests, max_length: int) -> None:
        self.requests = requests
        starts = np.maximum(requests.bounds[:-1], requests.bounds[1:] - max_length - 1)
        self.truncated = int((starts > requests.bounds[:-1]).sum())
        self.naive_tokens = int((requests.bounds[1:] - 1 - starts).sum())
        # Big-endian bytes sort as the tokens do, and sort fast.
        raw = requests.tokens.astype(">i4").tobytes()
        ends = requests.bounds[1:] - 1  # the last token is only a target
        keys = [raw[4 * start : 4 * end] for start, end in zip(starts, ends, strict=True)]
        order = sorted(set(keys))
        place = {key: index for index, key in enumerate(order)}
        self.input_of_request = np.array([place[key] for key in keys], np.int64)
        self.inputs = [np.frombuffer(key, ">i4").astype(np.int32) for key in order]
        self.lengths = np.array([len(tokens) for tokens in self.inputs], np.int64)
        pairs = zip(self.inputs, self.inputs[1:], strict=False)
        self.shared = np.array([0, *(_shared_prefix(a, b) for a, b in pairs)], np.int64)
        self._new = np.cumsum([0, *(self.lengths - self.shared)])

    def tokens_below(self, node: Node) -> int:
        """Return how many distinct tokens stand below `node`."""
        new = self._new[node.last] - self._new[node.first]
        return int(new + self.shared[node.first] - node.depth)

    def root(self) -> Node:
        """Return the tree of all branching points, down to one leaf an input."""
        root = Node(0, 0, len(self.inputs))
        path = [root]
        for index, length in enumerate(self.lengths):
            depth = int(self.shared[index])
            closed = None
            while path[-1].depth > depth:
                closed = path.pop()
                closed.last = index
                if path[-1].depth < depth:
                    branch = Node(depth, closed.first, 0, [closed])
                    path[-1].children[-1] = branch
                    path.append(branch)
            leaf = Node(int(length), index, index + 1)
            path[-1].children.append(leaf)
            path.append(leaf)
        for node in path:
            node.last = len(self.inputs)
        return root


def plan_passes(requests: TokenRequests, max_length: int, costs: PassCosts) -> ScoringPlan:
    """Plan the forward passes that score `requests`.

    Args:
        requests: Tokenised requests; one longer than `max_length` + 1 tokens loses its beginning,
            as in lm-eval.
        max_length: The model's context, in tokens.
        costs: Costs of passes on the device, and the tokens that fit one.

    Returns:
        The passes in the order to run them.
    """
    tree = RequestTree(requests, max_length)
    builder = PassBuilder(tree.inputs, tree.shared, requests, tree.input_of_request)
    step = _chain_tokens(costs)
    agenda = [(tree.root(), 0)]
    while agenda:
        node, cached = agenda.pop()
        for start in range(cached, node.depth, step):
            builder.add_chain(node.first, node.last, start, min(start + step, node.depth))
        light, heavy = _divide(tree, node, costs)
        for pack in _packs(tree, light, node.depth, costs):
            builder.add_pack(pack, node.depth)
        agenda.extend((child, node.depth) for child in reversed(heavy))
    return builder.finish(tree.naive_tokens, int(tree.lengths.sum()), tree.truncated)


def _divide(tree: RequestTree, node: Node, costs: PassCosts) -> tuple[np.ndarray, list[Node]]:
    """Part what is below a cached prefix into inputs to pack and branches to cache as well."""
    light, heavy = [], []
    stack = node.children[::-1]
    while stack:
        child = stack.pop()
        if _worth_caching(tree, child, node.depth, costs):
            heavy.append(child)
            continue
        if tree.lengths[child.first] == child.depth:  # an input ends here; others may go on
            light.append(child.first)
        stack.extend(reversed(child.children))
    return np.array(light, np.int64), heavy


def _worth_caching(tree: RequestTree, node: Node, cached: int, costs: PassCosts) -> bool:
    """Say whether repeating a prefix in each of its packs costs more than a pass of its own."""
    prefix, below = node.depth - cached, tree.tokens_below(node)
    if prefix > costs.max_tokens or not node.children:
        return prefix > costs.max_tokens
    packs = max(below / costs.best_tokens, -(-(prefix + below) // costs.max_tokens))
    return (packs - 1) * prefix > costs.per_pass


def _chain_tokens(costs: PassCosts) -> int:
    """Return the tokens of one pass of a long chain: short enough to skip keys not yet there."""
    return max(1, min(costs.max_tokens, int(2**0.5 * costs.best_tokens)))


def _packs(
    tree: RequestTree, light: np.ndarray, cached: int, costs: PassCosts
) -> Iterator[np.ndarray]:
    """Cut sorted inputs into consecutive packs of least total cost (dynamic programming)."""
    count = len(light)
    if not count:
        return
    shared = np.maximum(_shared_between(tree, light), cached)
    lengths = tree.lengths[light]
    new = np.cumsum([0, *(lengths - shared)])
    best = np.full(count + 1, np.inf)
    best[0] = 0
    start_of = np.zeros(count + 1, np.int64)
    for start in range(count):
        repeated = shared[start] - cached  # the first input of a pack needs its whole branch
        limit = new[start] - repeated + costs.max_tokens
        stop = max(start + 1, int(np.searchsorted(new, limit, side="right")) - 1)
        tokens = new[start + 1 : stop + 1] - new[start] + repeated
        price = costs.per_pass + tokens * (1 + costs.per_pair * (cached + tokens))
        total = best[start] + price
        better = total < best[start + 1 : stop + 1]
        best[start + 1 : stop + 1][better] = total[better]
        start_of[start + 1 : stop + 1][better] = start
    cuts = [count]
    while cuts[-1]:
        cuts.append(int(start_of[cuts[-1]]))
    for start, stop in zip(cuts[:0:-1], cuts[-2::-1], strict=True):
        yield light[start:stop]


def _shared_between(tree: RequestTree, light: np.ndarray) -> np.ndarray:
    """Return what each chosen input shares with the chosen one before it; 0 for the first."""
    shared = [0]
    for before, after in zip(light[:-1].tolist(), light[1:].tolist(), strict=True):
        shared.append(tree.shared[before + 1 : after + 1].min())
    return np.array(shared, np.int64)


def _shared_prefix(first: np.ndarray, second: np.ndarray) -> int:
    """Return how many leading tokens two sequences share."""
    size = min(len(first), len(second))
    differs = first[:size] != second[:size]
    return int(differs.argmax()) if differs.any() else size
