"""The promise of `@transform(row_wise=True)` during a run, until a check has compared rows.

The first changes of a run may show nothing: all of one key, or without rows. Then the first chunk
that has rows of several changes shows it, before it is committed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from datazone_dagster.api import Transform
from datazone_dagster.apply.function import Function
from datazone_dagster.apply.latest_parts import LatestPart
from datazone_dagster.apply.row_wise_check import Rows, Sample, check_row_wise


class Promise:
    """What a transform promises, and whether it was checked.

    Args:
        transform: The transform.
        function: Its function.
    """

    def __init__(self, transform: Transform, function: Function) -> None:
        self._name = transform.name
        self._function = function
        self._is_open = transform.row_wise
        self._sample = Sample()
        self._part: LatestPart | None = None

    def begin(self) -> None:
        """Forget the changes that were added."""
        self._sample, self._part = Sample(), None

    def add(self, part: LatestPart, rows: Rows) -> None:
        """Add changes on which the function was just called, for the next check.

        Nothing is added if the frames have shown that the function is row-wise.
        """
        if self._is_open and not self._function.is_by_change:
            self._sample.add(part.changes, rows)
            self._part = part

    def check(self, outputs: Sequence[str], lookups: Mapping[str, pa.Table]) -> None:
        """Check the function on the changes that were added, unless that is done.

        Raises:
            ResultError: The function is not row-wise.
            FullChunkNeededError: The function reads further images.
        """
        changes, part = self._sample.changes(), self._part
        self.begin()
        if changes is None or part is None:
            return
        function = self._function

        def evaluate(some: pa.Table) -> Rows:
            of_some = LatestPart(some, part.images, part.first_batch, part.last_batch)
            return function.read(outputs, function.returned(of_some, lookups))

        with function.on_trial():
            self._is_open = not check_row_wise(self._name, changes, evaluate, part.location)
