"""Fence of a bucket that gives columns wider types, which rewrites the table that others write to.

While others commit, a rewrite loses every race, and each attempt leaves a copy of the table behind
until files are cleaned. So a bucket that has lost once makes the others wait: see `swap_fence`.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pyarrow as pa

from datazone_dagster.dataset.swap_fence import (
    COLUMNS,
    length_through,
    lower_fence,
    make_way,
    raise_fence,
)
from datazone_dagster.dataset.table_shape import change_schema
from datazone_dagster.delta.table import Table
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.key_bucket import KeyBucket
from datazone_dagster.model.protocols import Clock
from datazone_dagster.rows.conform import Conformed

_logger = logging.getLogger(__name__)


class WideningFence:
    """The fence of one bucket; a run of every key has no others beside it, and needs none.

    Args:
        source: Source of the dataset.
        bucket: Bucket of the run.
        clock: Returns the current time.
    """

    def __init__(self, source: str, bucket: KeyBucket, clock: Clock) -> None:
        self.name = "" if bucket.is_whole else f"{COLUMNS}{bucket.name}"
        """Name of the fence: the run that raised it does not make way for it."""
        self._source = source
        self._clock = clock
        self._longest: timedelta | None = None

    def change_schema(
        self, table: Table, conformed: Conformed, dataset_id: str
    ) -> tuple[pa.Field, ...]:
        """Change the columns as `table_shape.change_schema` does, while the others wait if need be.

        Raises:
            ConcurrentWriterError: Another commit came first, or another fence was raised before.
            StorageError: The store failed.
        """
        if not (self.name and conformed.widened):
            return change_schema(table, conformed, dataset_id)
        if self._longest is not None:
            self._raise(table, self._longest, dataset_id)
        began_seconds = time.monotonic()
        try:
            return change_schema(table, conformed, dataset_id)
        except ConcurrentWriterError:
            lost = timedelta(seconds=time.monotonic() - began_seconds)
            self._longest = max(self._longest or lost, lost)
            raise

    def lower(self, table: Table) -> None:
        """Let the others go on, if they wait: the rows are committed, so this fails no run."""
        if not self.name:
            return
        try:
            lower_fence(table, self._source, self.name)
        except StorageError as error:
            _logger.warning("Buckets of %s wait longer than they need to: %s", table.uri, error)

    def _raise(self, table: Table, longest: timedelta, dataset_id: str) -> None:
        now, version = self._clock(), table.at.version
        until = now + length_through(longest)
        raise_fence(table, self._source, self.name, until, now)
        make_way(table.at, table.uri, self._source, now, self.name)
        if table.at.version != version + 1:  # the columns may be others by now
            raise ConcurrentWriterError(
                f"The dataset at {table.uri}: others have committed before they were made to wait.",
                safe="Nothing of this attempt was written; it is made again.",
            )
        _logger.warning(
            "Columns of dataset %s get wider types, which rewrites its table. Its other buckets "
            "wait meanwhile; if this process dies, they go on at %s.",
            *(dataset_id, f"{until:%Y-%m-%d %H:%M:%S} UTC"),
        )
