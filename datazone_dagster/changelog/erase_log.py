"""Erasure from the change log: the table as `rows.erase_rows` needs it.

Positions are a fold over the change log, and the checkpoint table is a snapshot of that fold. Rows
may be erased only where the checkpoint has all positions of the log: otherwise a drain that finds
no note of them would compute a lower position from the remaining rows. So the erasure saves the
fold first, as a drain does; a drain that saves at the same time wins the race.

Drains recognise changes that they read again by their rows. So the order numbers of those that a
stream may still have are stored before the rows go: see `erased_events`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.erased_events import (
    KEPT_DAYS,
    KEPT_DAYS_OF_DYNAMODB,
    TABLE_PROPERTY,
    from_text,
    number_of,
    to_text,
    with_erased,
)
from datazone_dagster.changelog.erased_events import PROPERTY as ERASED_EVENTS
from datazone_dagster.changelog.files import write_file
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.numbering import number_in
from datazone_dagster.changelog.owner import KIND
from datazone_dagster.changelog.schema import WRITTEN_SCHEMA
from datazone_dagster.delta.read_rows import filled
from datazone_dagster.delta.read_table import last_transaction
from datazone_dagster.delta.transaction_log import Action, LiveFile, Snapshot
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.model.shard import is_kinesis
from datazone_dagster.model.snapshot_state import PROPERTY, SCAN_SHARD_ID, SnapshotState
from datazone_dagster.model.version import EPOCH_DIGITS
from datazone_dagster.rows.erase_rows import ErasableTable, Search

ATTEMPTS = 8
"""Attempts to store the numbers of erased changes while drains commit to the same change log."""

_FIRST, _LAST = (one.replace(tzinfo=timezone.utc) for one in (datetime.min, datetime.max))


def erasable_log(
    layout: Layout, source: str, search: Search, on_forgotten: Callable[[int], None]
) -> ErasableTable:
    """Return the change log of a source as a table to erase rows from.

    Args:
        layout: Locations of the tables.
        source: Name of the source.
        search: The rows.
        on_forgotten: Called with the number of erased changes that are no longer recognised, as
            there are too many.
    """
    log = ChangeLog(layout, source)

    def check(table: DeltaTable) -> None:
        head = last_transaction(table, f"drain/{source}")
        saved = CheckpointTable(layout, source).open_or_create()
        newest = log.open()
        if newest is None:
            return
        if saved.checkpoint.batch < head:
            # A drain saves positions now and then only. Here every one has to be saved.
            saved.save(up_to_date(saved.checkpoint, newest, utc_now()))
        _store_numbers(log, search, on_forgotten)

    def left(snapshot: Snapshot) -> str | None:
        text = snapshot.configuration.get(PROPERTY)
        if text is None:
            return None
        keys = [key for key in SnapshotState.from_json(text).open.values() if key is not None]
        records = pa.RecordBatch.from_arrays(
            [pa.array(keys, pa.string()), pa.nulls(len(keys), pa.string())], [Log.KEYS, Log.RAW]
        )
        if search.find(records).null_count == len(keys):
            return None
        return "the scan of a snapshot goes on from such an item; when it has moved on, it can"

    return ErasableTable(
        log.uri,
        layout.storage_options,
        KIND,
        search,
        check=check,
        left=left,
        properties=(PROPERTY,),
        write=_written,
    )


def _store_numbers(
    change_log: ChangeLog, search: Search, on_forgotten: Callable[[int], None]
) -> None:
    """Store the order numbers of the changes to erase, unless they are stored.

    The erasure loses the commit race to this commit, and begins again on the version that has it.

    Raises:
        ConcurrentWriterError: Others committed first in every attempt.
    """
    doing = "Storing the order numbers of erased changes"
    for attempts_left in reversed(range(ATTEMPTS)):
        log = change_log.open()
        assert log is not None, "it is erased from"
        found: dict[str, set[str]] = {name: set() for name in KEPT_DAYS}
        for name, number in _numbers(log, search):
            found[name].add(number)
        try:
            for name, days in KEPT_DAYS.items():
                stored = from_text(log.properties.get(name))
                wanted, forgotten = with_erased(stored, found[name], utc_now(), days)
                if forgotten:
                    on_forgotten(forgotten)
                if wanted != stored:
                    log.set_property(name, to_text(wanted), doing)
        except ConcurrentWriterError:
            if not attempts_left:
                raise
        else:
            return


def _numbers(log: ChangeLogSnapshot, search: Search) -> Iterator[tuple[str, str]]:
    """Yield the order numbers of the searched changes that their stream may still have.

    Each comes with the table property that stores it.
    """
    recent = utc_now() - timedelta(days=KEPT_DAYS_OF_DYNAMODB)
    first = _FIRST if _has_kinesis(log) else recent
    of_row = [Log.STREAM_ARN, Log.SHARD_ID, Log.VERSION, Log.EVENT_TIME, Log.EVENT_ID]
    for rows in log.rows_of_time(first, _LAST, (Log.KEYS, Log.RAW, *of_row)):
        for batch in rows.to_batches():
            found = search.find(batch.select([Log.KEYS, Log.RAW]))
            for row in batch.filter(pc.is_valid(found)).select(of_row).to_pylist():
                if is_kinesis(row[Log.STREAM_ARN]):
                    if row[Log.VERSION] is not None:
                        yield ERASED_EVENTS, row[Log.VERSION][EPOCH_DIGITS:]
                elif (
                    # The event id of a scanned row is a hash of its key.
                    row[Log.SHARD_ID] != SCAN_SHARD_ID
                    and row[Log.EVENT_ID] is not None
                    and row[Log.EVENT_TIME] > recent
                ):
                    yield TABLE_PROPERTY, number_of(row[Log.EVENT_TIME], row[Log.EVENT_ID])


def _has_kinesis(log: ChangeLogSnapshot) -> bool:
    return any(
        is_kinesis(stream_arn)
        for rows in log.rows_of_time(_FIRST, _LAST, (Log.STREAM_ARN,))
        for stream_arn in pc.unique(rows[Log.STREAM_ARN]).to_pylist()
    )


def _written(
    snapshot: Snapshot, file: LiveFile, rows: Iterator[pa.RecordBatch], schema: pa.Schema
) -> Action | None:
    """Write the remaining changes of a file in the form that drains write."""
    number = number_in(file.add)
    constants = {} if number is None else {Log.BATCH: number}
    tables = (
        filled(pa.Table.from_batches([batch], schema), constants)
        .select(WRITTEN_SCHEMA.names)
        .cast(WRITTEN_SCHEMA)
        for batch in rows
        if batch.num_rows
    )
    bucket = int(file.partition_values[Log.BUCKET] or 0)
    add = write_file(snapshot.store, bucket, tables)
    if add is None:
        return None
    return {
        "path": add.path,
        "partitionValues": dict(file.partition_values),
        "size": add.size,
        "modificationTime": add.modification_time,
        "dataChange": True,
        "stats": add.stats,
    }


def key_names(layout: Layout, source: str) -> frozenset[str]:
    """Return the names of the key attributes of a source's table; empty if no change tells them.

    Raises:
        StorageError: The change log can't be read.
    """
    log = ChangeLog(layout, source).open()
    if log is None or not log.head:
        return frozenset()
    for chunk in log.chunks(log.truncated_through, log.head, 1, columns=(Log.BATCH, Log.KEYS)):
        for text in chunk.rows[Log.KEYS].drop_null().slice(0, 1).to_pylist():
            return frozenset(json.loads(text))
    return frozenset()
