"""Records that a dataset can't take: no stream record, no usable key, an image that is not JSON."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.decode.failure import DecodeFailure
from datazone_dagster.decode.images import image_failures
from datazone_dagster.decode.keys import key_column
from datazone_dagster.model.columns import EVENT_TIME, KEY, VERSION, Log


def keyed(rows: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The changes with their hidden columns, and the rows that have no usable key.

    The second table keeps the change log's columns; its `reason` says what is wrong.
    """
    malformed = pc.is_valid(rows[Log.REASON])
    refused = rows.filter(malformed)
    rows = rows.filter(pc.invert(malformed))
    keys, failures = key_column(rows[Log.KEYS])
    rows = (
        rows.append_column(KEY, keys)
        .append_column(VERSION, rows[Log.VERSION])
        .append_column(EVENT_TIME, rows[Log.EVENT_TIME])
    )
    if not failures:
        return rows, refused
    unkeyed = _refused(rows, failures)
    return rows.filter(pc.is_valid(rows[KEY])), pa.concat_tables([refused, unkeyed])


def readable(changes: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The changes whose images can be read, and the others with a `reason`, as `keyed`."""
    failures = image_failures(changes)
    failed = {failure.row for failure in failures}
    kept = pa.array([row not in failed for row in range(len(changes))], pa.bool_())
    return changes.filter(kept), _refused(changes, failures)


def _refused(changes: pa.Table, failures: Iterable[DecodeFailure]) -> pa.Table:
    reasons = {failure.row: failure.reason for failure in failures}
    rows = sorted(reasons)
    refused = changes.take(pa.array(rows, pa.int64())).drop_columns([KEY, VERSION, EVENT_TIME])
    texts = pa.array([reasons[row] for row in rows], pa.string())
    return refused.set_column(refused.column_names.index(Log.REASON), Log.REASON, texts)
