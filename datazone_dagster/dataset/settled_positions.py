"""Positions of the buckets after a RESTORE, said by a commit before the first one with rows.

Which position a RESTORE took back is in the log, as long as it is near: the commits of one bucket
would push the RESTORE out of reach of the others. So the first run of any bucket says them all.
"""

from __future__ import annotations

from datazone_dagster.dataset.bucket_positions import restored_positions
from datazone_dagster.delta import guarded, transactions
from datazone_dagster.delta.table import Table
from datazone_dagster.rows.append import append


def settle_positions(table: Table, source: str) -> None:
    """Commit the positions of a restored table with several; nothing for any other table.

    Raises:
        ConcurrentWriterError: Another commit came first; nothing was written.
        StorageError: The position of the rows is not known, or the store failed.
    """
    positions = restored_positions(table.at, source)
    if positions:
        with guarded(table.uri, "Setting the positions of restored rows"):
            append(table, table.schema.empty_table(), transactions(positions))
