"""A progress bar over all benchmarks of all models, with the time left, counted in requests."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from tqdm import tqdm

from wildmerge.study.file import Benchmark


class RequestsBar(tqdm):  # type: ignore[misc]  # tqdm has no types
    """Counts scored requests.

    Args:
        label: what is scored.
        benchmarks: every benchmark of every model that will be scored, so one stands there once a
            model.
        disable: show nothing; None decides by whether there is a terminal.
    """

    def __init__(
        self, label: str, benchmarks: Sequence[Benchmark], *, disable: bool | None = None
    ) -> None:
        self._names = [benchmark.name for benchmark in benchmarks]
        super().__init__(
            total=0, desc=label, unit="request", unit_scale=True, disable=disable, file=sys.stderr
        )

    def expect(self, requests: Mapping[str, int]) -> None:
        """Set the total: the number of requests of each benchmark, by its name, as soon as known.

        Benchmarks that have not been built yet, because an earlier run has finished them for the
        first models, are added when they are.
        """
        self.total = sum(requests.get(name, 0) for name in self._names)
        self.refresh()
