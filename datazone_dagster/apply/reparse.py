"""Quarantined records as changes again, parsed by what may be a newer parser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

import pyarrow as pa

from datazone_dagster.dataset.quarantine_rows import FIRST_SEEN_AT
from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import NO_TIME, ChangeRecord, ChangeRecords
from datazone_dagster.model.version import row_version
from datazone_dagster.source.kinesis_wire import FORMAT_MEMBER, parse_kinesis_record
from datazone_dagster.source.wire import NotAStreamRecordError, parse_page


def as_changes(
    records: pa.Table, masks: Masks | None, epoch_of: Callable[[int], int | None]
) -> pa.Table:
    """Return quarantined records in the change log's form, in their order.

    Stream records lose their `reason`, since the function decides about them again. Records that
    still can't be parsed keep their `reason`.

    Args:
        records: Rows of the quarantine.
        masks: Masks of their source.
        epoch_of: Returns the epoch of a batch, None if it is unknown.
    """
    rows = []
    for row in records.to_pylist():
        if row[Log.RAW] is None:
            rows.append({**row, Log.REASON: None})
            continue
        record = _parsed(row[Log.RAW], masks)
        version = row[Log.VERSION]
        if record is not None and version is None:
            epoch = epoch_of(row[Log.BATCH])
            version = None if epoch is None else row_version(epoch, record.sequence_number)
        if record is None or version is None:
            rows.append(row)
        else:
            seen_at = row[FIRST_SEEN_AT]
            rows.append({**row, **_columns(record, seen_at), Log.VERSION: version})
    return pa.Table.from_pylist(rows, records.schema)


def _parsed(raw: str, masks: Masks | None) -> ChangeRecord | None:
    try:
        records = ChangeRecords.of(_records_in(raw.encode()))
    except (ServiceUnavailableError, NotAStreamRecordError):  # perhaps not even JSON
        return None
    if masks is not None:
        records, _ = masks.records(records)
    return records[0] if len(records) == 1 else None


def _records_in(raw: bytes) -> Sequence[ChangeRecord]:
    if FORMAT_MEMBER in raw:
        return [parse_kinesis_record(raw)]
    page = parse_page(b'{"Records":[' + raw + b"]}")
    return () if page.malformed else page.records


def _has_time(record: ChangeRecord) -> bool:
    return record.created_at != NO_TIME


def _columns(record: ChangeRecord, seen_at: datetime) -> dict[str, Any]:
    """Return the columns of a change; one without a time of its own has that of its arrival."""
    time = datetime.fromtimestamp(record.created_at, timezone.utc) if _has_time(record) else seen_at
    return {
        Log.EVENT_ID: record.event_id,
        Log.EVENT_NAME: record.event_name,
        Log.EVENT_TIME: time,
        Log.KEYS: record.keys.decode(),
        Log.OLD_IMAGE: None if record.old_image is None else record.old_image.decode(),
        Log.NEW_IMAGE: None if record.new_image is None else record.new_image.decode(),
        Log.SIZE_BYTES: record.size_bytes,
        Log.USER_TYPE: record.user_type,
        Log.USER_PRINCIPAL: record.user_principal,
        Log.REGION: record.region,
        Log.VIEW_TYPE: record.view_type,
        Log.RAW: None,
        Log.REASON: None,
    }
