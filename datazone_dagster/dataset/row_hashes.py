"""Fingerprints of rows by key, and the keys whose fingerprints differ between two sides.

A null counts as much as a column that is not there, as it does for the rows of a dataset. Numbers
are compared as numbers: 5 is 5.000, whichever numeric type or text a column has by now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

from datazone_dagster.database.database import Database
from datazone_dagster.model.column_names import DELETION, HIDDEN, INTERVAL, KEY
from datazone_dagster.rows.align import number_texts

ROWS = "rows"
HASH = "hash"

_BATCH = "batch"
_WORD = 2**64
_SHARES = 1_000_000


class RowHashes:
    """Fingerprints of two sides of a comparison, in a database that spills to disk.

    Use it in a `with` block, which frees the memory and the disk.

    Args:
        memory_limit_bytes: DuckDB's memory limit.
    """

    def __init__(self, memory_limit_bytes: int) -> None:
        self._database = Database(memory_limit_bytes, 1)
        self._connection = self._database.connection
        self._sides: set[str] = set()

    def of(self, rows: pa.Table, without: Collection[str] = ()) -> pa.Table:
        """Return key, number of rows and hash of each key.

        Args:
            rows: Rows with their hidden columns.
            without: Names of columns that do not count.
        """
        names = [one for one in payload_names(rows.schema) if one not in without]
        return self._queried(rows, names, f"hash({_row_sum(names)})", _NO_COLUMN)

    def columns_of(self, rows: pa.Table) -> pa.Table:
        """Return key, number of rows, and for each column the hash of its values by key."""
        names = payload_names(rows.schema)
        each = ", ".join(
            f"{_word(f'sum({_cell(at, name)})')} AS v{at}" for at, name in enumerate(names)
        )
        found = self._queried(rows, names, "0", each)
        return found.drop_columns([HASH]).rename_columns([KEY, ROWS, *names])

    def _queried(self, rows: pa.Table, names: list[str], row_hash: str, more: str) -> pa.Table:
        columns = [rows[KEY], *(_comparable(rows[name]) for name in names)]
        table = pa.Table.from_arrays(columns, names=["k", *(f"c{at}" for at in range(len(names)))])
        self._connection.register(_BATCH, table)
        extra = f", {more}" if more else ""
        query = (
            f"SELECT k AS {KEY}, count(*)::BIGINT AS {ROWS}, "  # noqa: S608 - our own names
            f"{_word(f'sum({row_hash}::HUGEINT)')} AS {HASH}{extra} FROM {_BATCH} GROUP BY k"
        )
        found = pa.table(self._connection.sql(query))
        self._connection.unregister(_BATCH)
        return found

    def add(self, side: str, hashes: pa.Table) -> None:
        """Add fingerprints to a side; those of the same key are added up.

        Args:
            side: Name of the side, an identifier.
            hashes: Result of `of`.
        """
        self._open(side)
        self._connection.register(_BATCH, hashes)
        self._run(f"INSERT INTO {side} SELECT * FROM {_BATCH}")  # noqa: S608 - our own names
        self._connection.unregister(_BATCH)

    def differing(self, left: str, right: str, *, only_left: bool, most: int) -> list[str]:
        """Return keys whose fingerprints differ, in order, at most `most`.

        Args:
            left: A side.
            right: The other side; a key that it lacks has no rows there.
            only_left: Whether keys that only the right side has are left out.
            most: Limit of the keys.
        """
        kind = "LEFT" if only_left else "FULL"
        query = f"SELECT k {self._joined(left, right, kind)} ORDER BY k LIMIT {int(most)}"
        return self._texts(query)

    def count_differing(self, left: str, right: str, *, only_left: bool) -> int:
        """Count the keys that `differing` could return."""
        kind = "LEFT" if only_left else "FULL"
        query = f"SELECT count(*) {self._joined(left, right, kind)}"
        ((count,),) = self._run(query)
        return int(count)

    def drawn(self, side: str, other: str, share: float, seed: int, most: int) -> list[str]:
        """Return a share of the keys that a side has and another one lacks; the seed draws them."""
        self._open(side)
        self._open(other)
        query = (
            f"SELECT DISTINCT k FROM {side} WHERE k NOT IN (SELECT k FROM {other}) "  # noqa: S608
            f"AND hash(k, {int(seed)}) % {_SHARES} < {int(share * _SHARES)} ORDER BY k LIMIT {most}"
        )
        return self._texts(query)

    def keys(self, side: str) -> pa.Array:
        """Return the keys of a side."""
        self._open(side)
        query = f"SELECT DISTINCT k FROM {side}"  # noqa: S608 - our own names
        return pa.table(self._connection.sql(query))["k"].combine_chunks().cast(pa.string())

    def totals(self, side: str) -> tuple[int, int]:
        """Return the numbers of keys and of rows of a side."""
        self._open(side)
        query = f"SELECT count(DISTINCT k), coalesce(sum(n), 0)::BIGINT FROM {side}"  # noqa: S608
        ((keys, rows),) = self._run(query)
        return int(keys), int(rows)

    def close(self) -> None:
        """Free the memory and the disk."""
        self._database.close()

    def __enter__(self) -> RowHashes:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def _open(self, side: str) -> None:
        if side not in self._sides:
            self._run(f"CREATE TABLE {side} (k VARCHAR, n BIGINT, h UBIGINT)")
            self._sides.add(side)

    def _joined(self, left: str, right: str, kind: str) -> str:
        self._open(left)
        self._open(right)

        def one(side: str) -> str:
            total = _word("sum(h::HUGEINT)")
            return f"(SELECT k, sum(n) AS n, {total} AS h FROM {side} GROUP BY k)"  # noqa: S608

        return (
            f"FROM (SELECT * FROM {one(left)} a {kind} JOIN {one(right)} b USING (k) "  # noqa: S608
            "WHERE coalesce(a.n, 0) <> coalesce(b.n, 0) OR coalesce(a.h, 0) <> coalesce(b.h, 0))"
        )

    def _texts(self, query: str) -> list[str]:
        return [str(key) for (key,) in self._run(query)]

    def _run(self, query: str) -> list[tuple[Any, ...]]:
        return self._connection.execute(query).fetchall()


def payload_names(schema: pa.Schema) -> list[str]:
    """Return the columns that a function fills, in order of their names."""
    ours = {*HIDDEN, *INTERVAL, *DELETION}
    return sorted(name for name in schema.names if name not in ours)


def _comparable(values: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    kind = values.type
    if pt.is_decimal(kind):
        return number_texts(values)
    return values.cast(pa.string()) if pt.is_integer(kind) else values


_NO_COLUMN = ""


def _row_sum(names: list[str]) -> str:
    return " + ".join(["0::HUGEINT", *(_cell(at, name) for at, name in enumerate(names))])


def _cell(at: int, name: str) -> str:
    """Return the SQL of one value's hash; names are numbers here, so any name is harmless."""
    number = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
    return f"(CASE WHEN c{at} IS NULL THEN 0::HUGEINT ELSE hash({number}, c{at})::HUGEINT END)"


def _word(total: str) -> str:
    """Return the SQL of a sum of hashes in 64 bits: Arrow gets wider integers inexactly."""
    return f"({total} % {_WORD})::UBIGINT"
