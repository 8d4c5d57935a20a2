"""The change log's columns, and change records as rows of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.columns import Log
from datazone_dagster.model.record import ChangeRecord, ChangeRecords, MalformedRecord
from datazone_dagster.model.version import epoch_digits, row_version

BATCHES_PER_BUCKET = 4096
"""Batches of one partition: about six hours at a tick every 5 seconds."""

SCHEMA = pa.schema(
    [
        pa.field(Log.BUCKET, pa.int64(), nullable=False),
        pa.field(Log.BATCH, pa.int64(), nullable=False),
        pa.field(Log.STREAM_ARN, pa.string(), nullable=False),
        pa.field(Log.SHARD_ID, pa.string(), nullable=False),
        pa.field(Log.PARENT_SHARD_ID, pa.string()),
        pa.field(Log.VERSION, pa.string()),
        pa.field(Log.EVENT_ID, pa.string()),
        pa.field(Log.EVENT_NAME, pa.string()),
        pa.field(Log.EVENT_TIME, pa.timestamp("us", tz="UTC")),
        pa.field(Log.KEYS, pa.string()),
        pa.field(Log.OLD_IMAGE, pa.string()),
        pa.field(Log.NEW_IMAGE, pa.string()),
        pa.field(Log.SIZE_BYTES, pa.int64()),
        pa.field(Log.USER_TYPE, pa.string()),
        pa.field(Log.USER_PRINCIPAL, pa.string()),
        pa.field(Log.REGION, pa.string()),
        pa.field(Log.VIEW_TYPE, pa.string()),
        pa.field(Log.RAW, pa.string()),
        pa.field(Log.REASON, pa.string()),
    ]
)


REPEATING = (
    Log.STREAM_ARN,
    Log.SHARD_ID,
    Log.PARENT_SHARD_ID,
    Log.EVENT_NAME,
    Log.USER_TYPE,
    Log.USER_PRINCIPAL,
    Log.REGION,
    Log.VIEW_TYPE,
)
"""Columns with few values. A dictionary of the others would cost CPU and save nothing."""

WRITTEN_SCHEMA = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string()))
        if field.name in REPEATING
        else field
        for field in SCHEMA
        if field.name != Log.BUCKET
    ]
)
"""Rows on their way into a file: without the partition column, few values as a dictionary."""

PART_RECORDS = 8192
"""Records that become Arrow at a time."""


@dataclass(frozen=True, slots=True)
class ShardRecords:
    """What one batch lands of one shard, in the order of the shard."""

    stream_arn: str
    shard_id: str
    parent_shard_id: str | None
    records: Sequence[ChangeRecord]
    malformed: Sequence[MalformedRecord] = ()


def batch_parts(batch: int, epoch: int, shards: Sequence[ShardRecords]) -> Iterator[pa.Table]:
    """The rows of one batch, some thousand at a time: shard after shard, each in sequence."""
    for shard in shards:
        records = ChangeRecords.of(shard.records)
        for start in range(0, len(records), PART_RECORDS):
            yield _shard_table(batch, epoch, shard, records, start)
    for shard in shards:
        if shard.malformed:
            yield _malformed_table(batch, epoch, shard)


def _shard_table(
    batch: int, epoch: int, shard: ShardRecords, records: ChangeRecords, start: int
) -> pa.Table:
    part = slice(start, start + PART_RECORDS)
    digits = records.sequence_digits[part]
    seconds = pa.array(records.created_at[part], pa.int64())
    columns: dict[str, pa.Array] = {
        **_constants(batch, shard, len(digits)),
        Log.VERSION: pc.binary_join_element_wise(epoch_digits(epoch), pa.array(digits), ""),
        Log.EVENT_ID: pa.array(records.event_id[part], pa.string()),
        Log.EVENT_NAME: _repeating(records.event_name[part]),
        Log.EVENT_TIME: seconds.cast(pa.timestamp("s", tz="UTC")).cast(
            pa.timestamp("us", tz="UTC")
        ),
        Log.KEYS: _text(records.keys[part]),
        Log.OLD_IMAGE: _text(records.old_image[part]),
        Log.NEW_IMAGE: _text(records.new_image[part]),
        Log.SIZE_BYTES: pa.array(records.size_bytes[part], pa.int64()),
        Log.USER_TYPE: _repeating(records.user_type[part]),
        Log.USER_PRINCIPAL: _repeating(records.user_principal[part]),
        Log.REGION: _repeating(records.region[part]),
        Log.VIEW_TYPE: _repeating(records.view_type[part]),
    }
    return _filled(columns, len(digits))


def _text(values: Sequence[bytes | None]) -> pa.Array:
    """Cast, not built, as text: the check of UTF-8 is then one pass over the whole."""
    return pa.array(values, pa.binary()).cast(pa.string())


def _repeating(values: Sequence[str | None]) -> pa.Array:
    """Values of which there are few."""
    if len(set(values)) == 1:
        return _constant(values[0], len(values))
    return pa.array(values, pa.string()).dictionary_encode()


def _constant(value: str | None, rows: int) -> pa.Array:
    indices = pa.repeat(pa.scalar(None if value is None else 0, pa.int32()), rows)
    return pa.DictionaryArray.from_arrays(indices, pa.array([value or ""], pa.string()))


def _malformed_table(batch: int, epoch: int, shard: ShardRecords) -> pa.Table:
    records = shard.malformed
    columns: dict[str, pa.Array] = {
        **_constants(batch, shard, len(records)),
        Log.VERSION: pa.array(
            [
                None
                if record.sequence_number is None
                else row_version(epoch, record.sequence_number)
                for record in records
            ],
            pa.string(),
        ),
        Log.RAW: pa.array(
            [record.raw.decode("utf-8", "backslashreplace") for record in records], pa.string()
        ),
        Log.REASON: pa.array([record.reason for record in records], pa.string()),
    }
    return _filled(columns, len(records))


def _constants(batch: int, shard: ShardRecords, rows: int) -> dict[str, pa.Array]:
    return {
        Log.BATCH: pa.repeat(pa.scalar(batch, pa.int64()), rows),
        Log.STREAM_ARN: _constant(shard.stream_arn, rows),
        Log.SHARD_ID: _constant(shard.shard_id, rows),
        Log.PARENT_SHARD_ID: _constant(shard.parent_shard_id, rows),
    }


def _filled(columns: dict[str, pa.Array], rows: int) -> pa.Table:
    return pa.Table.from_arrays(
        [
            columns[field.name] if field.name in columns else pa.nulls(rows, field.type)
            for field in WRITTEN_SCHEMA
        ],
        schema=WRITTEN_SCHEMA,
    )


def bucket_of(batch: int) -> int:
    """The partition that a batch is in."""
    return batch // BATCHES_PER_BUCKET
