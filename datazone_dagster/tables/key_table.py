"""The keys of a result, in a database that spills: duplicates, and the rows of a table with them.

Memory has the limit of the database, whatever the number of keys. Names of columns never reach
SQL: the columns are numbered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyroaring import BitMap64

from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.read_file import numbered_batches
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ResultError
from datazone_dagster.model.report import MergeCounts
from datazone_dagster.rows.key_filter import IntegerFilter, KeyFilter, RowPositions
from datazone_dagster.text import shown

NOT_STORED = -1
"""Number of the part of a row that is not stored: one that deletes its key."""

_FILTERED_KEYS = 1 << 20
"""Number of keys up to which their filter is made: its table takes 16 bytes per key."""

_PART, _POSITION, _ORDER = "_part", "_position", "_order"


@dataclass(frozen=True)
class Located:
    """The rows of a table that have a key of the result.

    Args:
        positions: Positions of the rows, by path of their file.
        counts: Keys that are new, that have rows already, and that leave.
        rows: Number of rows in `positions`.
    """

    positions: dict[str, BitMap64]
    counts: MergeCounts
    rows: int


class KeyTable:
    """Keys of the rows of a result, each with the place of its row.

    Args:
        connection: Connection to a database of this object's own.
        key: Names of the key columns.
        order: Name of the column that decides between rows of one key; None: none does.
        where: Name of the asset for errors.
    """

    def __init__(
        self,
        connection: duckdb.DuckDBPyConnection,
        key: Sequence[str],
        order: str | None,
        *,
        where: str,
    ) -> None:
        self._connection = connection
        self._key = tuple(key)
        self._order = order
        self._where = where
        self._numbered = [f"k{at}" for at in range(len(key))]
        self._columns = ", ".join(self._numbered)
        self._has_rows = False
        self._schema: pa.Schema | None = None

    def add(self, rows: pa.Table, part: int, first_position: int = 0) -> None:
        """Add the keys of rows that are stored in a part, from a position on.

        Args:
            rows: Rows with the key columns, none of them null.
            part: Number of the part; `NOT_STORED` for rows that delete their keys.
            first_position: Position of the first row in the part.
        """
        if not len(rows):
            return
        numbers = np.arange(first_position, first_position + len(rows), dtype=np.int64)
        columns: dict[str, Any] = {
            name: rows[column] for name, column in zip(self._numbered, self._key, strict=True)
        }
        if self._order is not None:
            columns[_ORDER] = rows[self._order]
        columns[_PART] = pa.array(np.full(len(rows), part, np.int32))
        columns[_POSITION] = pa.array(numbers)
        added = pa.table(columns)
        if self._schema is None:
            self._schema = added.select(self._numbered).schema
        with _registered(self._connection, "added", added):
            if self._has_rows:
                self._connection.execute("insert into result select * from added")
            else:
                self._connection.execute("create table result as select * from added")
        self._has_rows = True

    def settle(self) -> dict[int, BitMap64]:
        """Decide which row of each key counts; return the stored positions of the others, by part.

        Raises:
            ResultError: A key is in several rows, and no order column decides between them.
        """
        if not self._has_rows:
            return {}
        ranked = "1" if self._order is None else f"max({_ORDER})"
        self._connection.execute(
            f"create table repeated as select {self._columns}, {ranked} as _best from result "  # noqa: S608  # numbered columns
            f"group by {self._columns} having count(*) > 1"
        )
        best = "true" if self._order is None else f"result.{_ORDER} is not distinct from _best"
        tied = self._answer(
            f"select {self._columns}, count(*) from result join repeated using ({self._columns}) "  # noqa: S608
            f"where {best} group by {self._columns} having count(*) > 1 limit 1"
        )
        if len(tied):
            raise self._repeated([column[0].as_py() for column in tied.columns])
        if self._order is None:
            return {}
        lost = self._answer(
            f"select {_PART}, {_POSITION} from result join repeated using ({self._columns}) "  # noqa: S608
            f"where not ({best})"
        )
        if len(lost):
            self._connection.execute(
                f"delete from result using repeated where not ({best}) and "  # noqa: S608
                + " and ".join(f"result.{one} = repeated.{one}" for one in self._numbered)
            )
        stored = lost.filter(pc.not_equal(lost[_PART], NOT_STORED))
        return _bitmaps(stored[_PART].to_numpy(), stored[_POSITION].to_numpy())

    def _repeated(self, tied: Sequence[object]) -> ResultError:
        named = ", ".join(
            f"{name}={shown(repr(value), 80)}" for name, value in zip(self._key, tied, strict=False)
        )
        if self._order is None:
            what = f"the key {named} is in {tied[-1]} rows of the result"
            hint = (
                "Return each key once, or name the column that decides: "
                'metadata={"order": "updated_at"} keeps the row with the highest value.'
            )
        else:
            what = f"the key {named} is in {tied[-1]} rows with the highest {self._order!r}"
            hint = "Return each key once, or order by a column that tells these rows apart."
        return ResultError(f"{self._where}: {what}.", safe="Nothing was written.", hint=hint)

    def locate(self, snapshot: Snapshot, schema: pa.Schema) -> Located:
        """Find the live rows of a table that have a key of the result.

        Args:
            snapshot: The table.
            schema: Types of the key columns, those of the table.
        """
        if not self._has_rows:
            return Located({}, MergeCounts(), 0)
        files = [file for file in snapshot.files if self._may_have_keys(file)]
        passing = self._filter(schema.field(self._key[0]).type)
        reader = pa.RecordBatchReader.from_batches(
            pa.schema([*self._typed(schema), (_PART, pa.int32()), (_POSITION, pa.int64())]),
            self._existing(snapshot, files, schema, passing),
        )
        with _registered(self._connection, "existing", reader):
            self._connection.execute(
                f"create or replace temp table found as select existing.{_PART} as _file, "  # noqa: S608
                f"existing.{_POSITION} as _at, result.rowid as _row, "
                f"result.{_PART} = {NOT_STORED} as _deletes "
                f"from existing join result using ({self._columns})"
            )
        rows = self._answer("select _file, _at from found")
        updated, deleted, stored = (
            column[0].as_py()
            for column in self._answer(
                "select count(distinct _row) filter (not _deletes), "  # noqa: S608
                "count(distinct _row) filter (_deletes), "
                f"(select count(*) from result where {_PART} != {NOT_STORED}) from found"
            ).columns
        )
        positions = _bitmaps(rows["_file"].to_numpy(), rows["_at"].to_numpy())
        return Located(
            {files[number].path: bitmap for number, bitmap in positions.items()},
            MergeCounts(stored - updated, updated, deleted),
            len(rows),
        )

    def _typed(self, schema: pa.Schema) -> list[pa.Field]:
        return [
            schema.field(column).with_name(name)
            for name, column in zip(self._numbered, self._key, strict=True)
        ]

    def _existing(
        self,
        snapshot: Snapshot,
        files: Sequence[LiveFile],
        schema: pa.Schema,
        passing: Callable[[pa.Array], RowPositions] | None,
    ) -> Iterator[pa.RecordBatch]:
        wanted = pa.schema([schema.field(name) for name in self._key])
        for number, file in enumerate(files):
            for positions, batch in numbered_batches(snapshot, file, wanted):
                if passing is not None and not batch.column(0).null_count:
                    candidates = passing(batch.column(0))
                    batch = batch.take(pa.array(candidates))  # noqa: PLW2901  # fewer rows
                    positions = positions[candidates]  # noqa: PLW2901
                yield pa.RecordBatch.from_arrays(
                    [
                        *batch.columns,
                        pa.array(np.full(batch.num_rows, number, np.int32)),
                        pa.array(positions),
                    ],
                    names=[*self._numbered, _PART, _POSITION],
                )

    def _filter(self, kind: pa.DataType) -> Callable[[pa.Array], RowPositions] | None:
        """Return the cheap filter of rows that may have a key; None where there is none."""
        is_text = pa.types.is_string(kind)
        if not is_text and not pa.types.is_integer(kind):
            return None
        found = self._answer(f"select distinct k0 from result limit {_FILTERED_KEYS + 1}")["k0"]  # noqa: S608
        if len(found) > _FILTERED_KEYS:
            return None
        keys = pa.array(found.combine_chunks()).cast(kind)
        return KeyFilter(keys).passing if is_text else IntegerFilter(keys).passing

    def _may_have_keys(self, file: LiveFile) -> bool:
        """Return whether the bounds of a file leave room for a key of the result."""
        first = self._key[0]
        low, high = file.minimum.get(first), file.maximum.get(first)
        if type(low) is not type(high) or not isinstance(low, (int, str)):
            return True
        kind = cast("pa.Schema", self._schema).field(0).type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
            return True
        found = self._answer("select 1 from result where k0 between ? and ? limit 1", [low, high])
        return bool(len(found))

    def _answer(self, query: str, values: Sequence[object] = ()) -> pa.Table:
        answer: pa.Table = self._connection.sql(query, params=list(values)).to_arrow_table()
        return answer


@contextmanager
def _registered(
    connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table | pa.RecordBatchReader
) -> Iterator[None]:
    """Name rows in the database for a while."""
    connection.register(name, rows)
    try:
        yield
    finally:
        connection.unregister(name)


def _bitmaps(numbers: Any, positions: Any) -> dict[int, BitMap64]:
    order = np.lexsort((positions, numbers))
    numbers, positions = numbers[order], positions[order].astype(np.uint64)
    return {int(number): BitMap64(positions[numbers == number]) for number in np.unique(numbers)}
