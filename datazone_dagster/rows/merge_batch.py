"""Keyed changes of one chunk to one table: keys, versions, causes and rows."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import EVENT_TIME, KEY, VERSION

CAUSE = "cause"
"""Column with the reason why a key leaves: user, ttl or filtered; null while the key has rows.

Deletes by time to live carry the service's principal (DynamoDB Streams, `userIdentity`).
"""

KEYED_CHANGES_SCHEMA = pa.schema(
    [pa.field(KEY, pa.string()), pa.field(VERSION, pa.string()), pa.field(CAUSE, pa.string())]
)


EACH_CHANGE_SCHEMA = pa.schema([*KEYED_CHANGES_SCHEMA, (EVENT_TIME, pa.timestamp("us", tz="UTC"))])
"""Schema of keyed changes where every change counts, not only the newest of its key."""


@dataclass(frozen=True)
class MergeBatch:
    """Changes of one chunk to one dataset.

    Args:
        keyed_changes: One row per key of the chunk: key, version, cause (null: the key has
            rows).
        rows: Rows of the keyed changes without a cause; several per key where the function
            returned several.
    """

    keyed_changes: pa.Table
    rows: pa.Table

    def without(self, keys: pa.Table) -> MergeBatch:
        """Return the batch without the keyed changes, and their rows, of the given keys.

        Args:
            keys: Table with the key column.
        """
        if not len(keys):
            return self
        lost = keys[KEY].combine_chunks()
        return MergeBatch(
            self.keyed_changes.filter(pc.invert(pc.is_in(self.keyed_changes[KEY], lost))),
            self.rows.filter(pc.invert(pc.is_in(self.rows[KEY], lost))),
        )
