"""Landed position of each shard, as recorded by the rows of the change log."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.checkpoint import Landed
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.shard import is_kinesis
from datazone_dagster.model.snapshot_state import SCAN_SHARD_ID
from datazone_dagster.model.version import split_version

_SHARD = [Log.STREAM_ARN, Log.SHARD_ID, Log.PARENT_SHARD_ID]
POSITION_COLUMNS = (Log.REASON, Log.BATCH, *_SHARD, Log.VERSION, Log.EVENT_TIME)


def landed(tables: Iterable[pa.Table]) -> list[Landed]:
    """Return the highest position of every shard that has rows.

    A malformed record moves no position: its sequence number may be anything. Neither does a
    scanned row, which comes from no shard. Changes that came through Kinesis have no position: only
    the note of their commit has it.

    Args:
        tables: Rows of the change log with `POSITION_COLUMNS`.
    """
    highest = [
        rows.filter(
            pc.and_(pc.is_null(rows[Log.REASON]), pc.not_equal(rows[Log.SHARD_ID], SCAN_SHARD_ID))
        )
        .group_by(_SHARD)
        .aggregate([(Log.VERSION, "max"), (Log.EVENT_TIME, "max")])
        for rows in tables
    ]
    found = []
    for row in pa.concat_tables(highest).to_pylist() if highest else ():
        epoch, sequence_number = split_version(row[f"{Log.VERSION}_max"])
        found.append(
            Landed(
                row[Log.STREAM_ARN],
                row[Log.SHARD_ID],
                row[Log.PARENT_SHARD_ID],
                epoch,
                None if is_kinesis(row[Log.STREAM_ARN]) else sequence_number,
                row[f"{Log.EVENT_TIME}_max"],
            )
        )
    return found
