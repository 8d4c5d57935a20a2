"""The change log's columns, and change records as rows of it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import Log
from datazone_dagster.model.record import ChangeRecord, ChangeRecords, MalformedRecord, Texts
from datazone_dagster.model.version import SEQUENCE_DIGITS, epoch_digits

BATCHES_PER_BUCKET = 4096
"""Batches in one partition: about six hours at a tick every 5 seconds."""

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
"""Columns with few distinct values. A dictionary for the others would cost CPU and save nothing."""

WRITTEN_SCHEMA = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string()))
        if field.name in REPEATING
        else field.with_nullable(field.nullable or field.name == Log.BATCH)
        for field in SCHEMA
        if field.name != Log.BUCKET
    ]
)
"""Schema of rows to write: no partition column, dictionaries for the `REPEATING` columns, and a
number that may be left to the commit: see `numbering`."""

T = TypeVar("T")

ROW_GROUP_RECORDS = 8192
ROW_GROUP_BYTES = 8 << 20
"""Records, and bytes of their images, that are converted to Arrow at a time."""


@dataclass(frozen=True, slots=True)
class ShardRecords:
    """Records of one shard that one batch lands, in the order of the shard."""

    stream_arn: str
    shard_id: str
    parent_shard_id: str | None
    records: Sequence[ChangeRecord]
    malformed: Sequence[MalformedRecord] = ()


class BatchRows:
    """The rows of one batch, some thousand at a time, in the order given.

    Many small pieces of many shards become one table: the cost of Arrow is per array.

    Args:
        batch: Number of the batch; None: its commit gives it.
        epoch: Epoch of the batch's rows.

    Attributes:
        epoch_from: Padded sequence number below which rows get the epoch before; None: none does.
    """

    def __init__(self, batch: int | None, epoch: int) -> None:
        self._batch = batch
        self._epoch = epoch
        self.epoch_from: str | None = None
        self._pieces: list[ShardRecords] = []
        self._rows = self._bytes = 0

    def add(self, shard: ShardRecords) -> Iterator[pa.Table]:
        """Add records, and yield the tables in `WRITTEN_SCHEMA` that they fill."""
        if shard.malformed:
            only = replace(shard, records=())
            yield _malformed_table(self._batch, self._epoch, self.epoch_from, only)
        for piece in _cut(shard):
            self._pieces.append(piece)
            self._rows += len(piece.records)
            self._bytes += ChangeRecords.of(piece.records).image_bytes
            if self._rows >= ROW_GROUP_RECORDS or self._bytes >= ROW_GROUP_BYTES:
                yield from self.flush()

    def flush(self) -> Iterator[pa.Table]:
        """Yield the rows that are in no table yet."""
        if self._pieces:
            yield _changes_table(self._batch, self._epoch, self.epoch_from, self._pieces)
            self._pieces = []
            self._rows = self._bytes = 0


def _cut(shard: ShardRecords) -> Iterator[ShardRecords]:
    """Cut records into pieces of at most `ROW_GROUP_RECORDS`; only tests have larger pages."""
    if len(shard.records) > ROW_GROUP_RECORDS:
        for start in range(0, len(shard.records), ROW_GROUP_RECORDS):
            yield replace(
                shard, records=shard.records[start : start + ROW_GROUP_RECORDS], malformed=()
            )
    elif shard.records:
        yield shard


def _changes_table(
    batch: int | None, epoch: int, epoch_from: str | None, pieces: Sequence[ShardRecords]
) -> pa.Table:
    records = [ChangeRecords.of(piece.records) for piece in pieces]
    sequence_digits = _chained(page.sequence_digits for page in records)
    seconds = _integers(page.created_at for page in records)
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        **_batch_and_shard(batch, pieces, len(sequence_digits)),
        Log.VERSION: _versions(pa.array(sequence_digits, pa.string()), epoch, epoch_from),
        Log.EVENT_ID: pa.array(_chained(page.event_id for page in records)),
        Log.EVENT_NAME: _repeating(page.event_name for page in records),
        Log.EVENT_TIME: seconds.cast(pa.timestamp("s", tz="UTC")).cast(
            pa.timestamp("us", tz="UTC")
        ),
        Log.KEYS: _texts(page.keys for page in records),
        Log.OLD_IMAGE: _texts(page.old_image for page in records),
        Log.NEW_IMAGE: _texts(page.new_image for page in records),
        Log.SIZE_BYTES: _integers(page.size_bytes for page in records),
        Log.USER_TYPE: _repeating(page.user_type for page in records),
        Log.USER_PRINCIPAL: _repeating(page.user_principal for page in records),
        Log.REGION: _repeating(page.region for page in records),
        Log.VIEW_TYPE: _repeating(page.view_type for page in records),
    }
    return _filled(columns, len(sequence_digits))


def _versions(sequence_digits: pa.Array, epoch: int, epoch_from: str | None) -> pa.Array:
    prefix: object = epoch_digits(epoch)
    if epoch_from is not None:
        is_late = pc.less(sequence_digits, epoch_from)
        prefix = pc.if_else(is_late, epoch_digits(epoch - 1), epoch_digits(epoch))
    return pc.binary_join_element_wise(prefix, sequence_digits, "")


def _chained(pages: Iterable[Sequence[T]]) -> list[T]:
    return list(chain.from_iterable(pages))


def _integers(pages: Iterable[array[int]]) -> pa.Array:
    return pa.array(np.concatenate([np.frombuffer(page, np.int64) for page in pages]))


def _texts(pages: Iterable[Texts]) -> pa.ChunkedArray:
    """Return the texts without a copy: each page is a chunk over its own memory."""
    return pa.chunked_array(map(_text, pages), pa.string())


def _text(texts: Texts) -> pa.Array:
    offsets = np.zeros(len(texts) + 1, np.int32)
    lengths = np.frombuffer(texts.lengths, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    present = np.packbits(lengths > 0, bitorder="little")
    buffers = [pa.py_buffer(present), pa.py_buffer(offsets), pa.py_buffer(texts.data)]
    return pa.Array.from_buffers(pa.string(), len(texts), buffers)


def _repeating(pages: Iterable[Sequence[str | None]]) -> pa.Array:
    """Return the values of a column in `REPEATING` as a dictionary array."""
    values = _chained(pages)
    if len(set(values)) == 1:
        return _constant(values[0], len(values))
    return pa.array(values, pa.string()).dictionary_encode()


def _constant(value: str | None, rows: int) -> pa.Array:
    indices = pa.repeat(pa.scalar(None if value is None else 0, pa.int32()), rows)
    return pa.DictionaryArray.from_arrays(indices, pa.array([value or ""], pa.string()))


def _malformed_table(
    batch: int | None, epoch: int, epoch_from: str | None, shard: ShardRecords
) -> pa.Table:
    records = shard.malformed
    digits = pa.array([_digits(record.sequence_number) for record in records], pa.string())
    columns: dict[str, pa.Array] = {
        **_batch_and_shard(batch, [shard], len(records)),
        Log.VERSION: _versions(digits, epoch, epoch_from),
        Log.RAW: pa.array(
            [record.raw.decode("utf-8", "backslashreplace") for record in records], pa.string()
        ),
        Log.REASON: pa.array([record.reason for record in records], pa.string()),
    }
    return _filled(columns, len(records))


def _digits(sequence_number: int | None) -> str | None:
    return None if sequence_number is None else f"{sequence_number:0{SEQUENCE_DIGITS}d}"


def _batch_and_shard(
    batch: int | None, pieces: Sequence[ShardRecords], rows: int
) -> dict[str, pa.Array]:
    """Return batch and shard of each row; the pieces follow one another."""
    lengths = [len(piece.records) or len(piece.malformed) for piece in pieces]
    return {
        Log.BATCH: pa.repeat(pa.scalar(batch, pa.int64()), rows),
        Log.STREAM_ARN: _runs([piece.stream_arn for piece in pieces], lengths),
        Log.SHARD_ID: _runs([piece.shard_id for piece in pieces], lengths),
        Log.PARENT_SHARD_ID: _runs([piece.parent_shard_id for piece in pieces], lengths),
    }


def _runs(values: Sequence[str | None], lengths: Sequence[int]) -> pa.Array:
    """Repeat each value as often as its length says."""
    if len(set(values)) == 1:
        return _constant(values[0], sum(lengths))
    encoded = pa.array(values, pa.string()).dictionary_encode()
    runs = pa.array(np.repeat(np.arange(len(lengths), dtype=np.int32), lengths))
    return pa.DictionaryArray.from_arrays(encoded.indices.take(runs), encoded.dictionary)


def _filled(columns: Mapping[str, pa.Array | pa.ChunkedArray], rows: int) -> pa.Table:
    return pa.Table.from_arrays(
        [
            columns[field.name] if field.name in columns else pa.nulls(rows, field.type)
            for field in WRITTEN_SCHEMA
        ],
        schema=WRITTEN_SCHEMA,
    )


def bucket_of(batch: int) -> int:
    """Return the partition of a batch."""
    return batch // BATCHES_PER_BUCKET
