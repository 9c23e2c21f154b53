"""A progress bar over all benchmarks of all models, with the time left, counted in requests."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from wildmerge.study.evaluation import Evaluation


class RequestsBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """Counts scored requests.

    Args:
        label: what is scored.
        evaluations: every evaluation of every model that will be scored, so one stands there once a
            model.
        disable: show nothing; None decides by whether there is a terminal.
    """

    def __init__(
        self, label: str, evaluations: Sequence[Evaluation], *, disable: bool | None = None
    ) -> None:
        self._ids = [evaluation.id for evaluation in evaluations]
        super().__init__(
            total=0, desc=label, unit="request", unit_scale=True, disable=disable, file=sys.stderr
        )

    def expect(self, requests: Mapping[str, int]) -> None:
        """Set the total: the number of requests of each evaluation, by its id, as soon as known.

        Benchmarks that have not been built yet, because an earlier run has finished them for the
        first models, are added when they are.
        """
        self.total = sum(requests.get(each, 0) for each in self._ids)
        self.refresh()
