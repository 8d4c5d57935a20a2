"""Rows with large columns: some small columns are in memory, the others pass through in parts.

A change rewrites the files that have a changed row, and adds files for new rows, in one commit on
top of the version that was read: any other commit in between wins the race.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
from deltalake import CommitProperties
from pyroaring import BitMap64

from datazone_dagster.delta import guarded, transactions
from datazone_dagster.delta.commit import FileActions, LostRaceError, commit_files, why_not
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.read_file import live_batches, rows_at
from datazone_dagster.delta.table import Table
from datazone_dagster.delta.transaction_log import Action, LiveFile
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.rows.overwrite import replace_rows

FILE_BYTES = 32 << 20
"""Decoded bytes of added rows per file: a later change of one row rewrites its file."""

RETENTION = timedelta(days=7)
"""Time for which entries of the log stay, as the properties of these tables say."""

PART_BYTES = 16 << 20
"""Decoded bytes of a row group: memory holds one of them several times while it is written."""


class StreamedRows:
    """All rows of one version of an unpartitioned table, of which some columns are in memory.

    Args:
        table: The table; `replace` moves it to the version that it commits.
        schema: Schema of the table.
        columns: Names of the columns to hold in memory.

    Raises:
        StorageError: The table can't be read.
    """

    def __init__(
        self,
        table: Table,
        schema: pa.Schema,
        columns: Sequence[str],
    ) -> None:
        self._table = table
        self._schema = schema
        self._columns = pa.schema([schema.field(name) for name in columns])
        self._snapshot = snapshot = table.at
        self._deleted = [snapshot.deleted_in(file) for file in snapshot.files]
        with guarded(table.uri, "Reading rows"):
            parts = [
                pa.Table.from_batches(
                    live_batches(snapshot, file, self._columns, gone), self._columns
                )
                for file, gone in zip(snapshot.files, self._deleted, strict=True)
            ]
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.rows = pa.concat_tables([self._columns.empty_table(), *parts])
        """The columns in memory. Row numbers count the rows of this table."""

    def read(self, numbers: pa.Array | pa.ChunkedArray) -> pa.Table:
        """Return rows with all columns, by row number and in that order.

        Raises:
            StorageError: The table can't be read.
        """
        wanted = np.asarray(numbers.to_numpy(), np.int64)
        found: list[pa.Table] = []
        with guarded(self._table.uri, "Reading rows"):
            for at, file in enumerate(self._snapshot.files):
                start, end = self._starts[at], self._starts[at + 1]
                inside = wanted[(wanted >= start) & (wanted < end)] - start
                if len(inside):
                    positions = self._live_positions(at)[inside]
                    found.append(
                        rows_at(self._snapshot, file, self._schema, BitMap64(positions.tolist()))
                    )
        rows = pa.concat_tables([self._schema.empty_table(), *found])
        # Rows come in ascending order; taking them in their own order would only copy them.
        order = np.argsort(np.argsort(wanted))
        return rows if (np.diff(order) > 0).all() else rows.take(pa.array(order))

    def _live_positions(self, at: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        live = int(self._starts[at + 1] - self._starts[at])
        gone = np.array(self._deleted[at].to_array(), np.int64)
        return np.delete(np.arange(live + len(gone)), gone)

    def replace(
        self,
        values: Mapping[str, pa.Array | pa.ChunkedArray],
        *,
        added: Iterable[pa.RecordBatch] = (),
        commit: CommitProperties | None = None,
        doing: str,
    ) -> None:
        """Replace columns that are in memory, and add rows, in one commit.

        Nothing is committed if no value differs, no row is added and `commit` is None.

        Args:
            values: New values of all rows, by column.
            added: New rows in the table's schema, in parts.
            commit: Properties that the commit carries.
            doing: Description of the operation, for errors.

        Raises:
            ConcurrentWriterError: Another commit came first; nothing was written.
            StorageError: The store failed.
        """
        rows = pa.Table.from_arrays(
            [_joined(values.get(field.name, self.rows[field.name])) for field in self._columns],
            schema=self._columns,
        )
        changed = [
            at
            for at in range(len(self._snapshot.files))
            if not self._of_file(rows, at).equals(self._of_file(self.rows, at))
        ]
        with guarded(self._table.uri, doing):
            if why_not(self._snapshot) is None:
                self._commit(rows, changed, added, commit, doing)
            else:
                self._commit_all(rows, added, commit)
            self._table.keep_short(RETENTION)

    def _commit(
        self,
        rows: pa.Table,
        changed: Sequence[int],
        added: Iterable[pa.RecordBatch],
        commit: CommitProperties | None,
        doing: str,
    ) -> None:
        adds = [*self._rewritten(rows, changed), *self._written(iter(added))]
        if not adds and commit is None:
            return
        removes = [self._snapshot.files[at] for at in changed]
        try:
            after = commit_files(
                self._snapshot,
                FileActions(adds, removes, [LiveFile(add, None).path for add in adds]),
                operation="MERGE",
                parameters={},
                metrics={
                    "numTargetFilesAdded": len(adds),
                    "numTargetFilesRemoved": len(removes),
                },
                properties=commit,
            )
        except LostRaceError as lost:
            raise ConcurrentWriterError(
                f"{doing} at {self._table.uri}: {lost}.",
                safe="Nothing of this attempt was committed; the other writer's commit is intact.",
                hint="This attempt lost the commit race; the next one continues from the new "
                "state.",
            ) from lost
        self._table.move_to(after)

    def _commit_all(
        self, rows: pa.Table, added: Iterable[pa.RecordBatch], commit: CommitProperties | None
    ) -> None:
        """Rewrite the table by delta-rs: it has rules that our own commits do not follow."""

        def pieces() -> Iterator[pa.Table]:
            for at in range(len(self._snapshot.files)):
                yield from map(_as_table, self._replaced(rows, at))
            yield from map(_as_table, added)

        with self._table.by_delta_rs() as handle:
            replace_rows(
                handle, pieces(), self._schema, commit or transactions({}), partition_by=()
            )

    def _rewritten(self, rows: pa.Table, changed: Sequence[int]) -> Iterator[Action]:
        for at in changed:
            add = self._file_of(self._replaced(rows, at))
            if add is not None:
                yield add

    def _replaced(self, rows: pa.Table, at: int) -> Iterator[pa.RecordBatch]:
        file, start = self._snapshot.files[at], int(self._starts[at])
        for batch in live_batches(self._snapshot, file, self._schema, self._deleted[at]):
            part = rows.slice(start, batch.num_rows)
            yield pa.RecordBatch.from_arrays(
                [
                    part[name].combine_chunks() if name in part.column_names else batch[name]
                    for name in self._schema.names
                ],
                schema=self._schema,
            )
            start += batch.num_rows

    def _written(self, added: Iterator[pa.RecordBatch]) -> Iterator[Action]:
        while True:
            add = self._file_of(_first_bytes(added))
            if add is None:
                return
            yield add

    def _file_of(self, batches: Iterator[pa.RecordBatch]) -> Action | None:
        return write_data_file(
            self._snapshot.store, self._schema, {}, batches, row_group_bytes=PART_BYTES
        )

    def _of_file(self, rows: pa.Table, at: int) -> pa.Table:
        start, end = int(self._starts[at]), int(self._starts[at + 1])
        return rows.slice(start, end - start)


def _first_bytes(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches until they have the size of a file."""
    taken_bytes = 0
    for batch in batches:
        yield batch
        taken_bytes += batch.nbytes
        if taken_bytes >= FILE_BYTES:
            return


def _as_table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _joined(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
