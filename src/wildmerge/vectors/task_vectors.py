"""What a merge method sees: the task vectors of one tensor, read lazily from base and experts.

A method gets a `TaskVectors` and returns an update to the base, in one of four forms:

- a float32 tensor of the tensor's shape (methods that need the whole matrix at once),
- a `Sum`: a multiple of the sum of the task vectors, or
- an elementwise rule: a function that maps a chunk of the task vectors, float32 of shape
  (n_experts, c), and the chunk's place in the flattened tensor to the chunk of the update, shape (c,).
  The engine applies it chunk by chunk, so that no stack of n full tensors ever exists. The chunk is
  the rule's own: it may be overwritten,
- `ByRows` of such a rule, whose chunks hold whole rows of the last axis.

Each may be returned alone or with a dictionary of facts for the merge report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wildmerge.checkpoints.roles import Role, role_of
from wildmerge.checkpoints.stored import StoredTensor, flat
from wildmerge.errors import Refusal
from wildmerge.vectors.draws import Draws
from wildmerge.vectors.elementwise import BLOCK, subtract, subtract_and_add_up


@dataclass(frozen=True)
class Sum:
    """An update that is a multiple of the sum of the task vectors."""

    factor: float


Rule = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True)
class ByRows:
    """An update by a rule that needs whole rows of the last axis: (n, r * width) to (r * width,)."""

    rule: Rule


Update = Tensor | Sum | Rule | ByRows
Facts = dict[str, Any]

CHUNK = 15 << 17
"""Elements that are worked on at once on a CPU, over the experts and some rows beside them: as many as
its last cache holds, for threads that take turns seldom."""
CHUNK_CUDA = 1 << 24
"""Elements of each task vector on a GPU, where launches cost more than memory."""


class TaskVectors:
    """The differences of n experts to their base in one tensor, as float32.

    Args:
        base: the base's tensor, any float dtype.
        experts: the experts' tensors, of the same shape, any float dtypes.
        name: the tensor's name in the checkpoint.
        role: what it is for; default as its name and shape say.
        sources: names of base and experts for messages; default "base", "expert 1", ...
        identities: of the experts' content, which decide what is drawn for them; default `sources`.
        factors: stored singular triplets of each task vector (see `wildmerge.merging.spectra`), if any.
        device: where the arithmetic happens.
        chunk: elements of each task vector worked on at once, rounded up to whole blocks; a choice of
            speed, never of result.
    """

    def __init__(
        self,
        base: Tensor | StoredTensor,
        experts: Sequence[Tensor | StoredTensor],
        *,
        name: str = "weight",
        role: Role | None = None,
        sources: Sequence[str] | None = None,
        identities: Sequence[str] | None = None,
        factors: Sequence[tuple[Tensor, Tensor, Tensor]] = (),
        device: torch.device | str = "cpu",
        chunk: int | None = None,
    ) -> None:
        self.name = name
        self.shape = tuple(base.shape)
        self.numel = base.numel()
        self.role = role or role_of(name, self.shape)
        self.device = torch.device(device)
        self.epsilon = max(torch.finfo(t.dtype).eps for t in experts)
        self.factors = factors
        self._base = flat(base)
        self._experts = [flat(expert) for expert in experts]
        self._latest = slice(0), torch.empty(0)
        self._sources = sources or ["base", *(f"expert {i + 1}" for i in range(len(experts)))]
        self._identities = identities or self._sources[1:]
        default = CHUNK // (len(experts) + 3) if self.device.type == "cpu" else CHUNK_CUDA
        self._chunk = -(-(chunk or default) // BLOCK) * BLOCK
        self._finite = False

    def __len__(self) -> int:
        """Return the number of experts, n."""
        return len(self._experts)

    @property
    def is_matrix(self) -> bool:
        """True for a 2-D tensor that is neither embedding nor output head."""
        return self.role == "matrix"

    @property
    def rounding(self) -> float:
        """Root mean square of the error that storing an expert's weights made, estimated from above.

        A weight w is stored to within half of eps * |w|, so the error's deviation is at most
        eps * |w| / sqrt(12).
        """
        squares = sum(float(self.base_chunk(at).square().sum()) for at in self.places())
        return self.epsilon * math.sqrt(squares / self.numel / 12)

    def base_chunk(self, at: slice) -> Tensor:
        """Return elements `at` of the flattened base as float32, shape (c,); not to be written to."""
        if self._latest[0] != at:  # asked for twice in a row: for task vectors and update
            self._latest = at, self._base[at].to(self.device, torch.float32)
        return self._latest[1]

    def draws(self, seed: int) -> list[Draws]:
        """Return the random numbers of each expert for this tensor."""
        return [Draws(seed, identity, self.name) for identity in self._identities]

    def places(self, row: int = 1) -> Iterator[slice]:
        """Yield the slices of the flattened tensor in order, of whole rows of `row` elements."""
        unit = math.lcm(row, BLOCK)
        step = max(self._chunk // unit, 1) * unit
        for start in range(0, self.numel, step):
            yield slice(start, min(start + step, self.numel))

    def chunks(self, whole_rows: bool = False) -> Iterator[tuple[slice, Tensor]]:
        """Yield (place, task vectors of shape (n, c), float32) over the flattened tensor.

        The buffer is reused: a chunk is valid until the next one is asked for.

        Args:
            whole_rows: no row of the last axis is divided.
        """
        row = self.shape[-1] if whole_rows and self.shape else 1
        yield from self._chunks(self._experts, self._sources[1:], row)
        self._finite = True

    def _chunks(
        self, experts: Sequence[Tensor | StoredTensor], sources: Sequence[str], row: int = 1
    ) -> Iterator[tuple[slice, Tensor]]:
        buffer = torch.empty(0, device=self.device)
        for at in self.places(row):
            if not len(buffer):  # the first is the largest
                buffer = torch.empty(len(experts) * (at.stop - at.start), device=self.device)
            deltas = buffer[: len(experts) * (at.stop - at.start)].view(len(experts), -1)
            total = subtract(experts, at, self.base_chunk(at), out=deltas)
            self._check(total, at, experts, sources)
            yield at, deltas

    def sums(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (place, sum of the task vectors of shape (c,), float32) over the flattened tensor."""
        for at in self.places():
            chunk = torch.empty(at.stop - at.start, device=self.device)
            total = subtract_and_add_up(self._experts, at, self.base_chunk(at), out=chunk)
            self._check(total, at, self._experts, self._sources[1:])
            yield at, chunk

    def chunk(self, index: int, at: slice) -> Tensor:
        """Return elements `at` of one expert's flattened task vector, float32, shape (c,)."""
        return self._experts[index][at].to(self.device, torch.float32) - self.base_chunk(at)

    def __getitem__(self, index: int) -> Tensor:
        """Return one expert's whole task vector, float32 of the tensor's shape."""
        whole = torch.empty(self.numel, device=self.device)
        for at, deltas in self._chunks([self._experts[index]], [self._sources[index + 1]]):
            whole[at] = deltas[0]
        return whole.reshape(self.shape)

    def sample(self, count: int) -> Tensor:
        """Return `count` entries of every task vector, from the same places, (n, count) float32.

        One random place in each of `count` equal parts of the flattened tensor, the same each time; all
        places where there are no more than `count`.
        """
        if count >= self.numel:
            places = torch.arange(self.numel)
        else:
            jitter = torch.rand(count, generator=torch.Generator().manual_seed(0))
            places = (torch.arange(count) + jitter.double()) * (self.numel / count)
            places = places.long().clamp_(max=self.numel - 1)
        base = self._base[places].float()
        deltas = torch.stack([expert[places].float() for expert in self._experts]).sub_(base)
        return deltas.to(self.device)

    def apply(self, update: Update) -> Iterator[tuple[slice, Tensor]]:
        """Yield (place, chunk of the update of shape (c,), float32) for any form of an update."""
        if isinstance(update, Tensor):
            flattened = update.reshape(-1)
            yield from ((at, flattened[at]) for at in self.places())
        elif isinstance(update, Sum):
            yield from ((at, chunk.mul_(update.factor)) for at, chunk in self.sums())
        else:
            by_rows = isinstance(update, ByRows)
            rule = update.rule if isinstance(update, ByRows) else update
            yield from ((at, rule(deltas, at)) for at, deltas in self.chunks(by_rows))

    def materialise(self, update: Update) -> Tensor:
        """Apply an update to the whole tensor: float32 of the tensor's shape."""
        whole = torch.empty(self.numel, device=self.device)
        for at, chunk in self.apply(update):
            whole[at] = chunk
        return whole.reshape(self.shape)

    def total(self) -> Tensor:
        """Return the sum of all task vectors, float32 of the tensor's shape."""
        return self.materialise(Sum(1.0))

    def _check(
        self,
        total: float,
        at: slice,
        experts: Sequence[Tensor | StoredTensor],
        sources: Sequence[str],
    ) -> None:
        """Refuse NaN and Inf: a finite sum shows that there is none, any other is looked into."""
        if self._finite or math.isfinite(total):
            return
        named = zip([self._sources[0], *sources], [self._base, *experts], strict=True)
        for source, tensor in named:
            if not torch.isfinite(tensor[at]).all():
                raise Refusal(
                    f"{source}: tensor {self.name} holds NaN or Inf; remove this checkpoint from the "
                    "recipe or fetch it again"
                )


def mean(vectors: TaskVectors) -> Sum:
    """Return the mean of the task vectors: the update of tensors that a matrix method leaves out."""
    return Sum(1 / len(vectors))
