"""Rows of a result on their way into a table: few in memory, many in files that nobody sees yet.

A file is in the table once a commit adds it. Until then it is an orphan, which maintenance removes
if the process dies.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
from pyroaring import BitMap64

from datazone_dagster.delta.data_file import by_partition, write_data_file
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.read_file import live_batches
from datazone_dagster.delta.transaction_log import Action, Snapshot

IN_MEMORY_BYTES = 16 << 20
"""Decoded size up to which a result stays in memory: its commit may join it with small files."""

FILE_BYTES = 512 << 20
"""Decoded size of a file, about: larger results are several files."""

BUFFERED_BYTES = 96 << 20
"""Decoded size of the rows that wait for their partition's file; the largest one is written."""

OnPart = Callable[[pa.Table, int, int], None]
"""Called with rows, the number of the part that they are in, and the position of the first one."""


@dataclass
class _Part:
    values: Mapping[str, str | None]
    rows: pa.Table | None = None
    add: Action | None = None


@dataclass
class StagedRows:
    """The rows of a result, written or in memory.

    Args:
        snapshot: Table that they are meant for; its version may have changed at the commit.
        schema: Schema of the rows.
        on_part: Function that is told where rows are.
    """

    snapshot: Snapshot
    schema: pa.Schema
    on_part: OnPart
    count: int = 0
    _parts: list[_Part] = field(default_factory=list)

    @property
    def rows(self) -> pa.Table:
        """The rows in memory."""
        tables = [part.rows for part in self._parts if part.rows is not None]
        return pa.concat_tables([self.schema.empty_table(), *tables])

    @property
    def files(self) -> list[Action]:
        """Add actions of the written files."""
        return [part.add for part in self._parts if part.add is not None]

    def take(self, batches: Iterator[pa.Table]) -> None:
        """Store all rows: in memory if they are few, else in files.

        Raises:
            OSError: The store failed.
        """
        first: list[pa.Table] = []
        size_bytes = 0
        for rows in batches:
            first.append(rows)
            size_bytes += rows.nbytes
            if size_bytes > IN_MEMORY_BYTES:
                everything = itertools.chain(first, batches)
                if self.snapshot.partition_columns:
                    self._write_partitions(everything)
                else:
                    self._write_files(everything)
                return
        if first:
            self._keep(pa.concat_tables(first))

    def _keep(self, rows: pa.Table) -> None:
        for values, part in by_partition(rows, self.snapshot.partition_columns):
            if len(part):
                self.on_part(part, len(self._parts), 0)
                self._parts.append(_Part(values, rows=part))
                self.count += len(part)

    def _write_files(self, batches: Iterator[pa.Table]) -> None:
        for rows in batches:
            self._write({}, _up_to(itertools.chain([rows], batches), FILE_BYTES))

    def _write_partitions(self, batches: Iterator[pa.Table]) -> None:
        waiting: dict[tuple[tuple[str, str | None], ...], list[pa.Table]] = {}
        sizes: dict[tuple[tuple[str, str | None], ...], int] = {}
        for rows in batches:
            for values, part in by_partition(rows, self.snapshot.partition_columns):
                if len(part):
                    at = tuple(values.items())
                    waiting.setdefault(at, []).append(part)
                    sizes[at] = sizes.get(at, 0) + part.nbytes
            while sum(sizes.values()) > BUFFERED_BYTES:
                largest = max(sizes, key=lambda at: sizes[at])
                del sizes[largest]
                self._write(dict(largest), iter(waiting.pop(largest)))
        for at, tables in waiting.items():
            self._write(dict(at), iter(tables))

    def _write(self, values: Mapping[str, str | None], tables: Iterable[pa.Table]) -> None:
        number, position = len(self._parts), 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal position
            for rows in tables:
                self.on_part(rows, number, position)
                position += len(rows)
                yield from rows.combine_chunks().to_batches()

        add = write_data_file(self.snapshot.store, self.schema, values, batches())
        self._parts.append(_Part(values, add=add))
        self.count += position

    def drop(self, lost: Mapping[int, BitMap64]) -> None:
        """Leave out the rows at these positions, by number of their part.

        Raises:
            OSError: The store failed.
        """
        for number, positions in lost.items():
            part = self._parts[number]
            self.count -= len(positions)
            if part.rows is not None:
                left = BitMap64(range(len(part.rows))) - positions
                part.rows = part.rows.take(pa.array(left.to_array(), pa.int64()))
            elif part.add is not None:
                file = LiveFile(part.add, None)
                stored = pa.schema([one for one in self.schema if one.name not in part.values])
                part.add = write_data_file(
                    self.snapshot.store,
                    self.schema,
                    part.values,
                    live_batches(self.snapshot, file, stored, positions),
                )
                self.snapshot.store.delete([file.path])

    def remove_files(self) -> None:
        """Delete the files: nothing will commit them.

        Raises:
            OSError: The store failed.
        """
        self.snapshot.store.delete(LiveFile(add, None).path for add in self.files)


def _up_to(tables: Iterator[pa.Table], most_bytes: int) -> Iterator[pa.Table]:
    taken_bytes = 0
    for rows in tables:
        yield rows
        taken_bytes += rows.nbytes
        if taken_bytes >= most_bytes:
            return
