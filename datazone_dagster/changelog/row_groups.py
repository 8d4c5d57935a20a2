"""Row groups of the change log: some thousand consecutive rows, read column by column.

Columns that a run does not need are neither fetched nor decoded: images are most of the bytes,
and many of them belong to superseded changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.changelog.ranges import rows_between
from datazone_dagster.changelog.schema import SCHEMA
from datazone_dagster.changelog.slot_parts import slots_in
from datazone_dagster.delta import rows_at_a_time
from datazone_dagster.delta.read_rows import filled
from datazone_dagster.delta.store import TableStore
from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.table_file import DataFile
from datazone_dagster.rows.key_hash import Taken, are_of

Packed = np.ndarray[Any, np.dtype[np.uint8]]
"""Which rows of a row group are of the bucket, as bits: there is one for every row of a range."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a file, with the decoded size of all its columns in bytes.

    `filtered`: some of its keys may be of other buckets than the one that is read.
    """

    file: int
    group: int
    rows: int
    decoded_bytes: int
    filtered: bool = False


class RowGroups:
    """The rows of the batches in (after_batch, through_batch], in the order of the log.

    A context manager: the file read last stays open. A row group that crosses an end of the range,
    or has keys of other buckets, yields only the rows inside, the same ones in every read.

    Args:
        store: Folder of the change log.
        files: Files of the change log with batches of the range, in order.
        after_batch: Start of the range, exclusive.
        through_batch: End of the range, inclusive.
        bucket: Bucket of the keys to read. Row groups without such keys are skipped where the file
            says which keys they have.
    """

    def __init__(
        self,
        store: TableStore,
        files: Sequence[DataFile],
        after_batch: int,
        through_batch: int,
        bucket: KeyBucket = WHOLE,
    ) -> None:
        self._store = store
        self._files = files
        self._range = (after_batch, through_batch)
        self._bucket = bucket
        self._of_bucket: dict[tuple[int, int], Packed] = {}
        self._open: tuple[int, Any, pq.ParquetFile] | None = None

    def __enter__(self) -> RowGroups:
        return self

    def __exit__(self, *_raised: object) -> None:
        self._close()

    def __iter__(self) -> Iterator[RowGroup]:
        for number in range(len(self._files)):
            metadata = self._parquet(number).metadata
            slots = (
                [None] * metadata.num_row_groups if self._bucket.is_whole else slots_in(metadata)
            )
            for group, known in enumerate(slots):
                if known is not None and not self._bucket.has_some_of(*known):
                    continue
                facts = metadata.row_group(group)
                yield RowGroup(
                    number,
                    group,
                    int(facts.num_rows),
                    int(facts.total_byte_size),
                    filtered=not (
                        self._bucket.is_whole
                        or (known is not None and self._bucket.has_all_of(*known))
                    ),
                )

    def read(self, row_group: RowGroup, columns: Sequence[str]) -> pa.Table:
        """Read these columns of the rows of a row group that are in the range.

        Raises:
            OSError: The store failed.
        """
        rows = self._parquet(row_group.file).read_row_group(
            row_group.group, columns=self._to_read(row_group, columns), use_threads=False
        )
        return self._inside(row_group, rows, columns, 0)

    def pieces(self, row_group: RowGroup, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows that `read` returns, some thousand at a time, decoded on the way.

        Raises:
            OSError: The store failed.
        """
        parquet = self._parquet(row_group.file)
        size = rows_at_a_time(parquet.metadata.row_group(row_group.group))
        wanted, first_row = self._to_read(row_group, columns), 0
        for batch in parquet.iter_batches(size, row_groups=[row_group.group], columns=wanted):
            rows = pa.Table.from_batches([batch])
            yield self._inside(row_group, rows, columns, first_row)
            first_row += len(rows)

    def _to_read(self, row_group: RowGroup, columns: Sequence[str]) -> list[str]:
        after_batch, through_batch = self._range
        file = self._files[row_group.file]
        inside = after_batch < file.minimum[Log.BATCH] and file.maximum[Log.BATCH] <= through_batch
        return list(columns) if inside else list(dict.fromkeys((*columns, Log.BATCH)))

    def _inside(
        self, row_group: RowGroup, rows: pa.Table, columns: Sequence[str], first_row: int
    ) -> pa.Table:
        """Return the rows of the bucket that are in the range; they begin at this row."""
        if row_group.filtered:
            taken = self._taken(row_group)[first_row : first_row + len(rows)]
            rows = rows if taken.all() else rows.filter(pa.array(taken))
        schema = pa.schema([SCHEMA.field(name) for name in columns])
        file = self._files[row_group.file]
        rows = rows_between(filled(rows, file.constants), file, *self._range)
        return rows.select(schema.names).cast(schema)

    def _taken(self, row_group: RowGroup) -> Taken:
        """Return per row of a row group whether it is of the bucket."""
        at = row_group.file, row_group.group
        if at not in self._of_bucket:
            keys = self._parquet(row_group.file).read_row_group(
                row_group.group, columns=[Log.KEYS], use_threads=False
            )[Log.KEYS]
            self._of_bucket[at] = np.packbits(are_of(self._bucket, slots_of(keys)))
        taken: Taken = np.unpackbits(self._of_bucket[at], count=row_group.rows).astype(bool)
        return taken

    def _parquet(self, number: int) -> pq.ParquetFile:
        if self._open is None or self._open[0] != number:
            self._close()
            file = self._files[number]
            handle = self._store.open(unquote(file.path), file.size_bytes)
            # Reading ahead saves requests. A local file needs none: there, other threads would
            # read ahead only to hand over memory, in fresh pages each time.
            parquet = pq.ParquetFile(handle, pre_buffer=not self._store.is_local)
            self._open = (number, handle, parquet)
        return self._open[2]

    def _close(self) -> None:
        if self._open is not None:
            _, handle, parquet = self._open
            parquet.close()
            handle.close()
            self._open = None
