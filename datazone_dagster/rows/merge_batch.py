"""The changes of one chunk to one keyed table, collapsed: keys, versions, causes, rows."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION

CAUSE = "cause"
"""Column: why a key leaves, null while it has rows: user, ttl or filtered.

Deletes by time to live carry the service's principal (DynamoDB Streams, `userIdentity`).
"""

KEYED_CHANGES_SCHEMA = pa.schema(
    [pa.field(KEY, pa.string()), pa.field(VERSION, pa.string()), pa.field(CAUSE, pa.string())]
)


EACH_CHANGE_SCHEMA = pa.schema([*KEYED_CHANGES_SCHEMA, (EVENT_TIME, pa.timestamp("us", tz="UTC"))])
"""Claims where each change counts, not only the newest of its key."""


@dataclass(frozen=True)
class MergeBatch:
    """What one chunk does to one dataset.

    Args:
        claims: One row per key of the chunk: key, version, cause (null: the key has rows).
        rows: The rows of the claims without a cause, several per key where the function
            returned several.
    """

    keyed_changes: pa.Table
    rows: pa.Table

    def without(self, keys: pa.Table) -> MergeBatch:
        """Without the claims, and their rows, on the keys of a table with the key column."""
        if not len(keys):
            return self
        lost = keys[KEY].combine_chunks()
        return MergeBatch(
            self.keyed_changes.filter(pc.invert(pc.is_in(self.keyed_changes[KEY], lost))),
            self.rows.filter(pc.invert(pc.is_in(self.rows[KEY], lost))),
        )
