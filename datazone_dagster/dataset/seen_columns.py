"""Columns of items that a run of a bucket knows: rows made without one of others may not fit.

Two buckets that meet a new attribute may give it columns of other types, or of other names.
"""

from __future__ import annotations

from dataclasses import replace

from datazone_dagster.dataset.stored_state import FunctionState, stored_state
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.attributes import AttributeColumn, AttributeMapping
from datazone_dagster.model.key_bucket import KeyBucket


class SeenColumns:
    """Columns that a table had when a run last read or wrote its state.

    Args:
        source: Source of the dataset.
        bucket: Bucket of the run; a run of every key has no others beside it.
    """

    def __init__(self, source: str, bucket: KeyBucket) -> None:
        self._source = source
        self._bucket = bucket
        self._seen: frozenset[AttributeColumn] = frozenset()

    def see(self, table: Snapshot) -> FunctionState:
        """Return the state that is stored with a table, and take its columns for known."""
        found = stored_state(table, self._source)
        self._seen = _undated(found.attributes)
        return found

    def cover(self, table: Snapshot, state: FunctionState) -> bool:
        """Return whether rows made with a state fit a table: others have added no columns."""
        if self._bucket.is_whole:
            return True
        stored = _undated(stored_state(table, self._source).attributes)
        return stored <= self._seen | _undated(state.attributes)

    def require(self, table: Snapshot, state: FunctionState) -> None:
        """Check that rows made with a state fit a table.

        Raises:
            ConcurrentWriterError: Another bucket has added columns of items.
        """
        if not self.cover(table, state):
            raise ConcurrentWriterError(
                "Another bucket has added columns for attributes to the dataset.",
                safe="Nothing of this chunk was written.",
                hint="The run begins anew with these columns; there is nothing to do.",
            )


def _undated(columns: AttributeMapping) -> frozenset[AttributeColumn]:
    return frozenset(replace(column, since=None) for column in columns)
