"""Fence of one rebuild: raised after some attempts in vain, short, and renewed while it works."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta

from datazone_dagster.dataset.dataset_table import KIND
from datazone_dagster.dataset.swap_fence import length_of, lower_fence, raise_fence
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock

UNFENCED = 3
"""Attempts while runs go on; then they make way."""


class RebuildFence:
    """The fence of one rebuild.

    Args:
        layout: The lakehouse.
        dataset_id: The dataset whose runs make way.
        source: Name of its source.
        clock: Returns the current time.
        logger: Logger that tells when runs wait.
    """

    def __init__(
        self, layout: Layout, dataset_id: str, source: str, clock: Clock, logger: logging.Logger
    ) -> None:
        self._layout = layout
        self._dataset_id = dataset_id
        self._source = source
        self._clock = clock
        self._logger = logger
        self._rebuild = uuid.uuid4().hex
        self._attempts = 0
        self._begun: datetime | None = None
        self._longest = timedelta(0)
        self._renew_at: datetime | None = None

    def begin_attempt(self) -> None:
        """Count an attempt, and raise or renew the fence where runs have to make way for it.

        The first attempt reads the whole change log: its time does not count.

        Raises:
            ConcurrentWriterError: Others committed first each time.
            StorageError: The store failed.
        """
        now = self._clock()
        if self._begun is not None and self._attempts > 1:
            self._longest = max(self._longest, now - self._begun)
        self._attempts, self._begun = self._attempts + 1, now
        if self._attempts > UNFENCED:
            self._raise()

    def renew(self) -> None:
        """Renew a fence that has stood for half of its time; errors as for `begin_attempt`."""
        if self._renew_at is not None and self._clock() >= self._renew_at:
            self._raise()

    def lower(self) -> None:
        """Let runs go on after a rebuild that failed, unless another one needs them to wait."""
        if self._attempts <= UNFENCED:
            return
        try:
            if (table := self._table()) is not None:
                lower_fence(table, self._source, self._rebuild)
        except StorageError as error:
            self._logger.warning("Rebuilding %s: runs wait longer: %s", self._dataset_id, error)

    def _raise(self) -> None:
        now, length = self._clock(), length_of(self._longest)
        until = now + length
        if (table := self._table()) is not None:
            raise_fence(table, self._source, self._rebuild, until, now)
        if self._renew_at is None:
            self._logger.warning(
                "Rebuilding %s: runs were faster %d times. They wait now until the rebuilt table "
                "is swapped in. If this process dies, they go on at %s.",
                *(self._dataset_id, UNFENCED, f"{until:%Y-%m-%d %H:%M:%S} UTC"),
            )
        self._renew_at = now + length / 2

    def _table(self) -> Table | None:
        return opened(self._layout.dataset(self._dataset_id), self._layout.storage_options, KIND)
