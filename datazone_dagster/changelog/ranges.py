"""Files and rows of the change log for a range of batches. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.table_file import DataFile


def by_batches(files: Iterable[DataFile]) -> list[DataFile]:
    """Return the files in the order of their batches."""
    return sorted(files, key=lambda file: (file.minimum[Log.BATCH], file.path))


def files_of_time(files: Iterable[DataFile], first: datetime, last: datetime) -> list[DataFile]:
    """Return the files that may have changes of a time, by their statistics."""
    return [
        file
        for file in files
        if Log.EVENT_TIME not in file.minimum
        or Log.EVENT_TIME not in file.maximum
        or (file.minimum[Log.EVENT_TIME] <= last and first <= file.maximum[Log.EVENT_TIME])
    ]


def files_at(files: Iterable[DataFile], seconds: Iterable[int]) -> list[DataFile]:
    """Return the files that may have changes of these seconds since 1970, by their statistics."""
    wanted = sorted(set(seconds))

    def may_have(file: DataFile) -> bool:
        first, last = (bounds.get(Log.EVENT_TIME) for bounds in (file.minimum, file.maximum))
        if first is None or last is None:
            return True
        at = bisect_left(wanted, int(first.timestamp()))
        return at < len(wanted) and wanted[at] <= last.timestamp()

    return [file for file in files if may_have(file)]


def files_between(
    files: Iterable[DataFile], after_batch: int, through_batch: int, bucket: KeyBucket = WHOLE
) -> list[DataFile]:
    """Return the files that may have keys of a bucket in (after_batch, through_batch]."""
    bits = bucket.slot_bits
    return [
        file
        for file in files
        if file.maximum[Log.BATCH] > after_batch
        and file.minimum[Log.BATCH] <= through_batch
        and (file.slots is None or file.slots & bits)
    ]


def newest_time_after(files: Iterable[DataFile], batch: int) -> datetime | None:
    """Return the latest event time of the files with batches after one, by their statistics."""
    later = (one.maximum for one in files if one.maximum[Log.BATCH] > batch)
    return max((one[Log.EVENT_TIME] for one in later if Log.EVENT_TIME in one), default=None)


def surely_between(files: Iterable[DataFile], after_batch: int, through_batch: int) -> bool:
    """Return whether the bounds of the files show a batch in (after_batch, through_batch]."""
    bounds = ((file.minimum[Log.BATCH], file.maximum[Log.BATCH]) for file in files)
    return any(after_batch < batch <= through_batch for pair in bounds for batch in pair)


def rows_between(rows: pa.Table, file: DataFile, after_batch: int, through_batch: int) -> pa.Table:
    """Return the rows of a file that belong to batches in (after_batch, through_batch].

    If the file lies within the range, `rows` is returned as is and needs no batch column.
    """
    if after_batch < file.minimum[Log.BATCH] and file.maximum[Log.BATCH] <= through_batch:
        return rows
    batches = rows[Log.BATCH]
    return rows.filter(
        pc.and_(pc.greater(batches, after_batch), pc.less_equal(batches, through_batch))
    )


def stored_bytes(files: Sequence[DataFile], after_batch: int, through_batch: int) -> int:
    """Return the approximate file size of the batches in (after_batch, through_batch], in bytes.

    A file that also has other batches counts in proportion to the batches in the range.
    """
    total = 0
    for file in files_between(files, after_batch, through_batch):
        first, last = int(file.minimum[Log.BATCH]), int(file.maximum[Log.BATCH])
        shared = min(last, through_batch) - max(first, after_batch + 1) + 1
        total += file.size_bytes * shared // (last - first + 1)
    return total
