"""Which files of the change log hold a range of batches, and which of their rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.delta import DataFile
from datazone_dagster.model.column_names import Log


def files_between(
    files: Iterable[DataFile], after_batch: int, through_batch: int
) -> list[DataFile]:
    """The files that may hold batches in (after_batch, through_batch]."""
    return [
        file
        for file in files
        if file.maximum[Log.BATCH] > after_batch and file.minimum[Log.BATCH] <= through_batch
    ]


def rows_between(rows: pa.Table, file: DataFile, after_batch: int, through_batch: int) -> pa.Table:
    """Those of a file's rows that are of batches in (after_batch, through_batch].

    Not looked at, nor need they have the column of batches, where all of the file's are.
    """
    if after_batch < file.minimum[Log.BATCH] and file.maximum[Log.BATCH] <= through_batch:
        return rows
    batches = rows[Log.BATCH]
    return rows.filter(
        pc.and_(pc.greater(batches, after_batch), pc.less_equal(batches, through_batch))
    )


def stored_bytes(files: Sequence[DataFile], after_batch: int, through_batch: int) -> int:
    """What the batches in (after_batch, through_batch] take in files, about.

    Of a file that has others, too, it is the share of its batches.
    """
    total = 0
    for file in files_between(files, after_batch, through_batch):
        first, last = int(file.minimum[Log.BATCH]), int(file.maximum[Log.BATCH])
        shared = min(last, through_batch) - max(first, after_batch + 1) + 1
        total += file.size_bytes * shared // (last - first + 1)
    return total
