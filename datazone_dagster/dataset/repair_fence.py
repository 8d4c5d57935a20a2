"""Fence of an erasure or a redrive: runs that never rest would commit before it, each time."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta

from datazone_dagster.dataset import dataset_table
from datazone_dagster.dataset.swap_fence import length_through, lower_fence, raise_fence
from datazone_dagster.delta.table import Table, opened
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock

UNFENCED = 2
"""Attempts at one commit while runs go on; then they make way."""

_logger = logging.getLogger(__name__)


class RepairFence:
    """The fence of one erasure, or one redrive, of one dataset and its companion tables.

    Args:
        layout: The lakehouse.
        dataset_id: The dataset whose runs make way.
        source: Name of its source.
        clock: Returns the current time.
        kind: Start of the name of the fence.
    """

    def __init__(
        self, layout: Layout, dataset_id: str, source: str, clock: Clock, kind: str
    ) -> None:
        self._layout = layout
        self._dataset_id = dataset_id
        self._source = source
        self._clock = clock
        self._name = f"{kind}{uuid.uuid4().hex}"
        self._longest = timedelta(0)
        self._is_raised = False

    def lost(self, attempts: int, seconds: float) -> None:
        """Note that runs were faster; raise or renew the fence after some times.

        Args:
            attempts: How often they were.
            seconds: How long the last attempt took.

        Raises:
            ConcurrentWriterError: Others committed first each time.
            StorageError: The store failed.
        """
        self._longest = max(self._longest, timedelta(seconds=seconds))
        if attempts < UNFENCED or (table := self._table()) is None:
            return
        now = self._clock()
        until = now + length_through(self._longest)
        raise_fence(table, self._source, self._name, until, now)
        if not self._is_raised:
            _logger.warning(
                "Runs of dataset %s were faster than the repair %d times. They wait until it is "
                "done; if this process dies, they go on at %s.",
                *(self._dataset_id, attempts, f"{until:%Y-%m-%d %H:%M:%S} UTC"),
            )
        self._is_raised = True

    def lower(self) -> None:
        """Let the runs go on, if they wait; what is done is done, so this fails nothing."""
        if not self._is_raised:
            return
        try:
            if (table := self._table()) is not None:
                lower_fence(table, self._source, self._name)
            self._is_raised = False
        except StorageError as error:
            _logger.warning("Runs of dataset %s wait longer: %s", self._dataset_id, error)

    def _table(self) -> Table | None:
        uri = self._layout.dataset(self._dataset_id)
        return opened(uri, self._layout.storage_options, dataset_table.KIND)
