"""What a merge method sees: the task vectors of one tensor, read lazily from base and experts.

A method gets a `TaskVectors` and returns an update to the base, in one of two forms:

- a float32 tensor of the tensor's shape (methods that need the whole matrix at once), or
- an elementwise rule: a function that maps a chunk of the task vectors, float32 of shape
  (n_experts, c), and the chunk's place in the flattened tensor to the chunk of the update, shape (c,).
  The engine applies it chunk by chunk, so that no stack of n full tensors ever exists. The chunk is
  the rule's own: it may be overwritten.

Either may be returned alone or with a dictionary of facts for the merge report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wildmerge.checkpoints.stored import StoredTensor, flat
from wildmerge.errors import Refusal
from wildmerge.merging.roles import role_of

Rule = Callable[[Tensor, slice], Tensor]
Update = Tensor | Rule
Facts = dict[str, Any]

CHUNK = 1 << 17
"""Elements of a task vector that are worked on at once on a CPU: a few float32 rows fit its cache."""
CHUNK_CUDA = 1 << 24
"""The same on a GPU, where launches cost more than memory."""
BLOCK = 1 << 9
"""Chunks start at multiples of this, so that sums over a chunk group the same elements, and vector
instructions the same columns, whatever the size of a chunk."""


class TaskVectors:
    """The differences of n experts to their base in one tensor, as float32.

    Args:
        base: the base's tensor, any float dtype.
        experts: the experts' tensors, of the same shape, any float dtypes.
        name: the tensor's name in the checkpoint; decides its role.
        sources: names of base and experts for messages; default "base", "expert 1", ...
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
        sources: Sequence[str] | None = None,
        factors: Sequence[tuple[Tensor, Tensor, Tensor]] = (),
        device: torch.device | str = "cpu",
        chunk: int | None = None,
    ) -> None:
        self.name = name
        self.shape = tuple(base.shape)
        self.numel = base.numel()
        self.role = role_of(name, self.shape)
        self.device = torch.device(device)
        self.epsilon = max(torch.finfo(t.dtype).eps for t in experts)
        self.factors = factors
        self._base = flat(base)
        self._experts = [flat(expert) for expert in experts]
        self._latest = slice(0), torch.empty(0)
        self._sources = sources or ["base", *(f"expert {i + 1}" for i in range(len(experts)))]
        chunk = chunk or (CHUNK if self.device.type == "cpu" else CHUNK_CUDA)
        self._chunk = -(-chunk // BLOCK) * BLOCK
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
        if (
            self._latest[0] != at
        ):  # asked for twice in a row: for the task vectors and for the update
            self._latest = at, self._base[at].to(self.device, torch.float32)
        return self._latest[1]

    def places(self) -> Iterator[slice]:
        """Yield the slices of the flattened tensor in order."""
        for start in range(0, self.numel, self._chunk):
            yield slice(start, min(start + self._chunk, self.numel))

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (place, task vectors of shape (n, c), float32) over the flattened tensor.

        The buffer is reused: a chunk is valid until the next one is asked for.
        """
        buffer = torch.empty(len(self), min(self._chunk, self.numel), device=self.device)
        for at in self.places():
            deltas = buffer[:, : at.stop - at.start]
            for row, expert in zip(deltas.unbind(), self._experts, strict=True):
                row.copy_(expert[at])
            deltas.sub_(self.base_chunk(at))
            self._check_finite(deltas, at)
            yield at, deltas
        self._finite = True

    def chunk(self, index: int, at: slice) -> Tensor:
        """Return elements `at` of one expert's flattened task vector, float32, shape (c,)."""
        return self._experts[index][at].to(self.device, torch.float32) - self.base_chunk(at)

    def __getitem__(self, index: int) -> Tensor:
        """Return one expert's whole task vector, float32 of the tensor's shape."""
        whole = torch.empty(self.numel, device=self.device)
        for at in self.places():
            whole[at] = self.chunk(index, at)
            self._check_finite(whole[None, at], at, first=index)
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

    def materialise(self, rule: Rule) -> Tensor:
        """Apply an elementwise rule to the whole tensor: float32 of the tensor's shape."""
        update = torch.empty(self.numel, device=self.device)
        for at, deltas in self.chunks():
            update[at] = rule(deltas, at)
        return update.reshape(self.shape)

    def total(self) -> Tensor:
        """Return the sum of all task vectors, float32 of the tensor's shape."""
        return self.materialise(lambda deltas, at: add_up(deltas))

    def _check_finite(self, deltas: Tensor, at: slice, first: int = 0) -> None:
        # a sum is not finite when one element is not; the exact look happens only then
        if self._finite or math.isfinite(float(deltas.sum())):
            return
        held = [self._base, *self._experts[first : first + len(deltas)]]
        names = [self._sources[0], *self._sources[first + 1 :]]
        for source, tensor in zip(names, held, strict=False):
            if not torch.isfinite(tensor[at]).all():
                raise Refusal(
                    f"{source}: tensor {self.name} holds NaN or Inf; remove this checkpoint from the "
                    "recipe or fetch it again"
                )


def mean(deltas: Tensor, at: slice) -> Tensor:
    """Return the mean of the task vectors: the rule for tensors that a matrix method leaves out."""
    del at
    return add_up(deltas).div_(len(deltas))


def add_up(deltas: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the sum over the experts, (n, c) to (c,), in `out` if it is given."""
    if deltas.device.type != "cpu":
        return torch.sum(deltas, 0, out=out)
    into = None if out is None else out.numpy()
    return torch.from_numpy(np.add.reduce(deltas.numpy(), 0, out=into))  # faster than torch
