"""The tables of one chunk in a DuckDB database of their own, and the queries over them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from datazone_dagster.errors import TransformError
from datazone_dagster.frame.database import Database, Databases

DEFAULT_MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
_BATCH_ROWS = 16_384  # DuckDB reads Arrow batches in parallel, one table in one piece not at all
_BATCH_BYTES = 2 << 20
"""DuckDB works on 2,048 rows at a time, or on an Arrow batch if that has fewer: of large items it
would hold everything several times over."""

_RESULT_ROWS = 16_384
"""Rows of a result that come at a time, where it is read while it is made."""


class MalformedImageError(TransformError):
    """A record of the chunk holds an image that is not JSON; nothing of the chunk was read.

    `decode.images.image_failures` finds the records.
    """


@dataclass(frozen=True, slots=True)
class Unread:
    """A table that is read when it is first asked for; binding needs its columns only.

    `read` brings the same rows whenever it is called, with at least the images that it is asked
    for.
    """

    schema: pa.Schema
    read: Callable[[frozenset[str]], pa.Table]


@dataclass(frozen=True, slots=True)
class Coming:
    """Rows that a query asks for while it runs: of them, no more than it works on is held.

    Args:
        schema: Of the rows.
        batches: The rows. Threads of DuckDB's ask for them, one at a time. What it raises ends
            the query.
        goes_on: Told of the bytes of each part of the result. From when it says no, there are no
            more rows, and the result is that of the rows before.
    """

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    goes_on: Callable[[int], bool]


class Session:
    """A DuckDB database that holds the tables of one chunk.

    Several threads may use it; calls wait for each other. It sees nothing but these tables:
    see `Database`.

    Args:
        tables: Arrow tables by the name that SQL knows them by, or how to read them. They are
            not copied.
        memory_limit_bytes: What DuckDB may use for intermediate results.
        threads: Of DuckDB; None leaves it to DuckDB (one per core).
        databases: Where it gets its database from, and where that goes once the session is
            gone. None: it has its own, which ends with it.
    """

    def __init__(
        self,
        tables: Mapping[str, pa.Table | Unread],
        *,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        threads: int | None = None,
        databases: Databases | None = None,
    ) -> None:
        self._tables = dict(tables)
        self._images_read: dict[str, frozenset[str]] = {}
        self._memory_limit_bytes = memory_limit_bytes
        self._threads = threads
        self._databases = databases
        self._lock = threading.RLock()
        self._database = self._taken(threads)
        self._connection = self._database.connection
        self._finalizer = weakref.finalize(self, _leave, self._database, databases, tuple(tables))
        for name, table in tables.items():
            self._register(name, _empty(table) if isinstance(table, Unread) else table)

    @property
    def table_names(self) -> list[str]:
        """The tables that it holds."""
        return list(self._tables)

    @property
    def is_unread(self) -> bool:
        """Whether there is a table of which nothing was read so far."""
        return any(
            isinstance(table, Unread) and name not in self._images_read
            for name, table in self._tables.items()
        )

    def with_table(self, name: str, table: pa.Table) -> Session:
        """Another session like this one, with one more table, and without those to be read."""
        read = {name: one for name, one in self._tables.items() if not isinstance(one, Unread)}
        return Session(
            {**read, name: table},
            memory_limit_bytes=self._memory_limit_bytes,
            threads=self._threads,
            databases=self._databases,
        )

    def ask(self, query: str, value: str) -> str:
        """The one text that a query of one text parameter returns, always the same."""
        if self._databases is None:
            return self._ask(query, value)
        return self._databases.answer(query, value, self._ask)

    def _ask(self, query: str, value: str) -> str:
        with self._lock:
            row = self._connection.execute(query, [value]).fetchall()[0]
        return str(row[0])

    def columns(self, query: str) -> list[tuple[str, str]]:
        """Names and DuckDB types of a query's columns. Binds it, reads nothing.

        Raises:
            duckdb.Error: It does not bind.
        """
        with self._lock:
            rows = self._connection.execute(f"DESCRIBE {query}").fetchall()
        return [(str(row[0]), str(row[1])) for row in rows]

    def read(self, images: frozenset[str]) -> None:
        """Have these images in the tables that are read when asked for, for `table`."""
        with self._lock:
            for name, table in self._tables.items():
                known = self._images_read.get(name)
                if isinstance(table, Unread) and (known is None or not images <= known):
                    wanted = images | (known or frozenset())
                    self._database.is_full = True
                    self._register(name, _in_schema(table.read(wanted), table.schema))
                    self._images_read[name] = wanted

    def table(self, query: str) -> pa.Table:
        """Runs a query, over what `read` has brought.

        Raises:
            duckdb.Error: It fails.
        """
        with self._lock:
            return self._run(query)

    def table_over(self, query: str, name: str, rows: pa.Table | Coming) -> pa.Table:
        """Runs a query with other rows in the place of a table that is unread.

        Raises:
            duckdb.Error: It fails.
        """
        if isinstance(rows, Coming):
            # The rows come one after another: a second thread would take more CPU, and wait.
            database = self._taken(threads=1)
            try:
                return _run_over(database.connection, query, name, rows)
            finally:
                _leave(database, self._databases, (name,))
        with self._lock:
            self._database.is_full = True
            self._register(name, rows)
            try:
                return self._run(query)
            finally:
                self._register(name, _empty(self._tables[name]))

    def _taken(self, threads: int | None) -> Database:
        if self._databases is None:
            return Database(self._memory_limit_bytes, threads)
        return self._databases.take(self._memory_limit_bytes, threads)

    def _run(self, query: str) -> pa.Table:
        table = self._connection.sql(query).to_arrow_table()
        assert isinstance(table, pa.Table)  # DuckDB's stubs leave it open
        return table

    def _register(self, name: str, table: pa.Table) -> None:
        batches = table.to_batches(max_chunksize=_rows_at_a_time(table))
        self._connection.register(name, pa.Table.from_batches(batches, table.schema))

    def close(self) -> None:
        """Frees the memory and the temporary directory now; frames of it can't be read more."""
        self._finalizer()


def _run_over(
    connection: duckdb.DuckDBPyConnection, query: str, name: str, rows: Coming
) -> pa.Table:
    asked = _Asked(rows.batches)
    connection.register(name, pa.RecordBatchReader.from_batches(rows.schema, asked))
    found: list[pa.RecordBatch] = []
    try:
        reader = connection.sql(query).to_arrow_reader(_RESULT_ROWS)
        for batch in reader:
            found.append(batch)
            if not rows.goes_on(batch.nbytes):
                asked.end()
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if asked.error is not None:
            raise asked.error from None
        # Of what fails while it is read, Arrow tells the text only.
        raise error if isinstance(error, duckdb.Error) else duckdb.Error(str(error)) from error
    return pa.Table.from_batches(found, reader.schema)


class _Asked:
    """Batches as DuckDB gets them, until they are ended; what they raised is kept."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self._ended = False
        self.error: BaseException | None = None

    def end(self) -> None:
        """Give no more of them."""
        self._ended = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                rows = _rows_at_a_time(batch)
                for start in range(0, batch.num_rows, rows):
                    if self._ended:
                        return
                    yield batch.slice(start, rows)
        except BaseException as error:
            self.error = error
            raise


def _rows_at_a_time(rows: pa.Table | pa.RecordBatch) -> int:
    row_bytes: int = rows.nbytes // max(rows.num_rows, 1) + 1
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))


def _in_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """With all columns, as expressions that are bound later may name them; unread ones are null."""
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _empty(table: pa.Table | Unread) -> pa.Table:
    return table.schema.empty_table()


def _leave(database: Database, databases: Databases | None, tables: Sequence[str]) -> None:
    if databases is None:
        database.close()
    else:
        databases.release_memory(database, tables)
