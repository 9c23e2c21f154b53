"""Run passes of a prefix tree through a Hugging Face causal language model.

The model is used as it is: a 4-D attention mask lets each node see its ancestors only, explicit
position ids give every node its distance from the beginning, and a cache with one slot a depth
keeps shared prefixes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, CacheLayerMixin

from wildmerge.scoring.prefix.passes import Pass, ScoringPlan

LOGIT_ROWS = 64  # rows of logits turned into log-probabilities at a time, in float32
MASK_ALIGNMENT = 16  # elements; CUDA's attention kernels want aligned rows of the mask


class SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]  # transformers has few types
    """Keys and values of one layer; a pass overwrites the slots behind the prefix it builds on.

    Args:
        cache: The cache it belongs to, which knows where the current pass begins.
    """

    is_sliding = False
    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._cache = cache

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate all slots, on the device and in the dtype of the first states."""
        slots = self._cache.slots
        self.keys = key_states.new_empty((*key_states.shape[:2], slots, key_states.shape[3]))
        self.values = value_states.new_empty(
            (*value_states.shape[:2], slots, value_states.shape[3])
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store a pass's states (1, heads, t, size); return those of prefix and pass."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, stop = self._cache.start, self._cache.start + key_states.shape[2]
        self.keys[:, :, start:stop] = key_states
        self.values[:, :, start:stop] = value_states
        return self.keys[:, :, :stop], self.values[:, :, :stop]

    def get_seq_length(self) -> int:
        """Return the length of the prefix that the current pass builds on."""
        return self._cache.start

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return how many keys a query sees at most, and the first key's index."""
        return self._cache.start + query_length, 0

    def get_max_length(self) -> int:
        """Return the number of slots."""
        return self._cache.slots


class SlotCache(Cache):
    """A cache in which a token's slot is its depth in the tree.

    Args:
        layers: Number of the model's layers.
        slots: Length of the longest prefix and pass together.
    """

    def __init__(self, layers: int, slots: int) -> None:
        self.start = 0
        self.slots = slots
        super().__init__(layers=[SlotLayer(self) for _ in range(layers)])


def tree_mask(last_descendant: torch.Tensor, cached: int, dtype: torch.dtype) -> torch.Tensor:
    """Return the additive mask with which each node sees the prefix, its ancestors and itself.

    Args:
        last_descendant: int (t,), see `wildmerge.scoring.prefix.passes`.
        cached: Tokens of the prefix before the pass.
        dtype: The model's dtype.

    Returns:
        (1, 1, t, cached + t): 0 where node i sees key j, minus infinity elsewhere.
    """
    size = len(last_descendant)
    node = torch.arange(size, device=last_descendant.device)
    hidden = (node > node[:, None]) | (node[:, None] > last_descendant)
    width = -(-(cached + size) // MASK_ALIGNMENT) * MASK_ALIGNMENT
    mask = torch.zeros((size, width), dtype=dtype, device=last_descendant.device)
    mask[:, cached : cached + size].masked_fill_(hidden, -torch.inf)
    return mask[None, None, :, : cached + size]


@torch.inference_mode()
def run_plan(
    model: PreTrainedModel, plan: ScoringPlan, on_finished: Callable[[int], None] | None = None
) -> list[tuple[float, bool]]:
    """Score all requests of a plan.

    Args:
        model: A causal language model that `packable.why_not_packable` has nothing against.
        plan: The passes to run.
        on_finished: Called after each pass with the number of requests it completed.

    Returns:
        Log-likelihood and greediness of each request, in the order they were asked.
    """
    reads = len(plan.read_node)
    logprobs = torch.empty(reads, dtype=torch.float32, device=model.device)
    greedy = torch.empty(reads, dtype=torch.bool, device=model.device)
    cache = SlotCache(model.config.get_text_config().num_hidden_layers, plan.slots)
    for index, step in enumerate(plan):
        found = slice(*plan.read_bounds[index : index + 2].tolist())
        logprobs[found], greedy[found] = run_pass(model, step, cache)
        if on_finished and step.finished:
            on_finished(step.finished)
    return plan.scores(logprobs.cpu().numpy().astype(np.float64), greedy.cpu().numpy())


def run_pass(
    model: PreTrainedModel, step: Pass, cache: SlotCache
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run one pass; return its reads' log-probabilities (float32) and whether each is greedy."""

    def on_device(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(model.device, torch.long)

    read_nodes, row_of_read = np.unique(step.read_node, return_inverse=True)
    cache.start = step.cached
    logits = model(
        input_ids=on_device(step.tokens)[None],
        attention_mask=tree_mask(on_device(step.last_descendant), step.cached, model.dtype),
        position_ids=on_device(step.positions)[None],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=on_device(read_nodes if len(read_nodes) else np.zeros(1)),
    ).logits[0]
    return read_logprobs(logits, on_device(row_of_read), on_device(step.read_target))


def read_logprobs(
    logits: torch.Tensor, rows: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities of tokens and whether each is the most probable one.

    Args:
        logits: (n, vocabulary), any float dtype.
        rows: int64 (r,), ascending, which row of `logits` a read refers to.
        targets: int64 (r,), the token read.

    Returns:
        float32 (r,) and bool (r,).
    """
    logprobs = torch.empty(len(rows), dtype=torch.float32, device=logits.device)
    greedy = torch.empty(len(rows), dtype=torch.bool, device=logits.device)
    cuts = torch.arange(0, len(logits) + LOGIT_ROWS, LOGIT_ROWS, device=rows.device)
    bounds = torch.searchsorted(rows, cuts).tolist()
    for chunk, (first, last) in enumerate(zip(bounds, bounds[1:], strict=False)):
        part = logits[chunk * LOGIT_ROWS : (chunk + 1) * LOGIT_ROWS]
        row = rows[first:last] - chunk * LOGIT_ROWS
        distribution = torch.log_softmax(part, dim=-1, dtype=torch.float32)
        logprobs[first:last] = distribution[row, targets[first:last]]
        greedy[first:last] = part.argmax(dim=-1)[row] == targets[first:last]
    return logprobs, greedy
