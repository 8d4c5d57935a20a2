"""A file with keys of several buckets as one file per bucket, so that their writers do not meet.

Rows of as many buckets as fit in memory are held from one reading of the file. The others are held
from the next reading. A bucket that does not fit alone is written while the file is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import Action, Snapshot
from datazone_dagster.model.column_names import KEY, VERSION
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.rows.bucket_files import may_have_keys, tag_of, tagged
from datazone_dagster.rows.key_hash import Slots, are_of, slots_of_keys

HELD_BYTES = 64 << 20
"""Largest size of the rows that are held, decoded."""

_Rows = dict[KeyBucket, Iterable[pa.RecordBatch]]


def split_file(
    snapshot: Snapshot, file: LiveFile, buckets: int, held_bytes: int = HELD_BYTES
) -> list[Action]:
    """Write the live rows of a file by bucket, and return the add actions.

    Args:
        snapshot: The table.
        file: File of the table.
        buckets: Number of buckets.
        held_bytes: Size of the rows that are held between reading and writing.

    Raises:
        OSError: The store failed.
        StorageError: A deletion vector is damaged.
    """
    waiting: Sequence[KeyBucket] = [
        bucket for bucket in key_buckets(buckets) if may_have_keys(file, bucket)
    ]
    written: list[Action | None] = []
    while waiting:
        held: _Rows = {**_held(snapshot, file, waiting, held_bytes)}
        if not held:  # not even the first one fits
            held = {waiting[0]: _rows_of(snapshot, file, waiting[0])}
        written += [_written(snapshot, file, bucket, rows) for bucket, rows in held.items()]
        waiting = waiting[len(held) :]
    return [add for add in written if add is not None]


def _held(
    snapshot: Snapshot, file: LiveFile, buckets: Sequence[KeyBucket], most_bytes: int
) -> dict[KeyBucket, list[pa.RecordBatch]]:
    """Return the rows of the first of these buckets, as many as fit; none if none fits."""
    held: dict[KeyBucket, list[pa.RecordBatch]] = {bucket: [] for bucket in buckets}
    held_bytes = 0
    for slots, batch in _with_slots(snapshot, file):
        for bucket, rows in held.items():
            rows.append(_of(bucket, slots, batch))
            held_bytes += rows[-1].nbytes
        while held and held_bytes > most_bytes:
            held_bytes -= sum(one.nbytes for one in held.popitem()[1])
        if not held:
            break
    return held


def _rows_of(snapshot: Snapshot, file: LiveFile, bucket: KeyBucket) -> Iterator[pa.RecordBatch]:
    return (_of(bucket, slots, batch) for slots, batch in _with_slots(snapshot, file))


def _with_slots(snapshot: Snapshot, file: LiveFile) -> Iterator[tuple[Slots, pa.RecordBatch]]:
    for batch in live_batches(snapshot, file, snapshot.schema, snapshot.deleted_in(file)):
        yield slots_of_keys(batch.column(KEY).cast(pa.string())), batch


def _of(bucket: KeyBucket, slots: Slots, batch: pa.RecordBatch) -> pa.RecordBatch:
    return batch.filter(pa.array(are_of(bucket, slots)))


def _written(
    snapshot: Snapshot, file: LiveFile, bucket: KeyBucket, rows: Iterable[pa.RecordBatch]
) -> Action | None:
    add = write_data_file(
        snapshot.store,
        snapshot.schema,
        file.partition_values,
        rows,
        data_change=False,
        plain_columns=(KEY, VERSION),
    )
    return None if add is None else tagged(add, tag_of(bucket))
