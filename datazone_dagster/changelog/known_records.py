"""Look-up of records that arrived again: whether the change log has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.changelog import erased_events
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import NO_TIME, ChangeRecord
from datazone_dagster.model.version import split_version

_COLUMNS = (
    Log.STREAM_ARN,
    Log.SHARD_ID,
    Log.VERSION,
    Log.EVENT_ID,
    Log.EVENT_NAME,
    Log.SIZE_BYTES,
    Log.KEYS,
    Log.REASON,
)


_FIRST = datetime.min.replace(tzinfo=timezone.utc)
_LAST = datetime.max.replace(tzinfo=timezone.utc)


def any_landed(
    log: ChangeLogSnapshot,
    shard: ShardCheckpoint,
    records: Sequence[ChangeRecord],
    *,
    compare_keys: bool,
) -> bool:
    """Return whether the change log has at least one of these records of a shard.

    The sequence number alone does not tell: it begins again where a stream is made again. A row
    without an event is a record that could not be parsed or masked, and counts. So does one that
    was erased.

    Args:
        log: The change log.
        shard: Shard that the records come from.
        records: Records, at least one.
        compare_keys: Whether the log has the keys as they arrive. Masks may have changed them.

    Raises:
        StorageError: The store failed.
    """
    erased = erased_events.erased_in(log.properties)
    if erased and any(
        erased_events.number_of(_time(record.created_at), record.event_id) in erased
        for record in records
        if record.created_at != NO_TIME
    ):
        return True
    wanted = {record.sequence_number: record for record in records}
    for rows in log.rows_of_time(*_span(records), _COLUMNS):
        of_shard = rows.filter(
            pc.and_(
                pc.equal(rows[Log.STREAM_ARN], shard.stream_arn),
                pc.equal(rows[Log.SHARD_ID], shard.shard_id),
            )
        ).drop_columns([Log.STREAM_ARN, Log.SHARD_ID])
        if any(_is_one_of(wanted, row, compare_keys) for row in _plain(of_shard)):
            return True
    return False


def _plain(rows: pa.Table) -> list[dict[str, object]]:
    found: list[dict[str, object]] = rows.filter(pc.is_valid(rows[Log.VERSION])).to_pylist()
    return found


def _is_one_of(wanted: dict[int, ChangeRecord], row: dict[str, object], compare_keys: bool) -> bool:
    record = wanted.get(split_version(str(row[Log.VERSION]))[1])
    if record is None:
        return False
    if row[Log.REASON] is not None:
        return True
    return (
        row[Log.EVENT_ID] == record.event_id
        and row[Log.EVENT_NAME] == record.event_name
        and row[Log.SIZE_BYTES] == record.size_bytes
        # The service may order the attributes of a key in another way the next time.
        and (not compare_keys or sorted(str(row[Log.KEYS])) == sorted(record.keys.decode()))
    )


def _span(records: Sequence[ChangeRecord]) -> tuple[datetime, datetime]:
    """Return the first and the last time of the records; all times if one has none."""
    first, last = (pick(record.created_at for record in records) for pick in (min, max))
    if first == NO_TIME:
        return _FIRST, _LAST
    return _time(first), _time(last)


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
