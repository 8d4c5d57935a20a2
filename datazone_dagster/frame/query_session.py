"""Sessions: the tables of one chunk in their own DuckDB database, and queries over them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from datazone_dagster.database.database import DEFAULT_MEMORY_LIMIT_BYTES, Database, Databases
from datazone_dagster.errors import ExpressionError, TransformError
from datazone_dagster.frame.path_notes import PathNotes, note_pad_of

_BATCH_ROWS = 16_384  # DuckDB reads several Arrow batches in parallel, but not one large batch
_BATCH_BYTES = 2 << 20
"""Limit on the bytes of an Arrow batch. DuckDB works on 2,048 rows at a time, or on one Arrow batch
if it has fewer rows, so 2,048 large items would be in memory several times over."""

_RETAINED_BYTES = 8 << 20
"""Size of rows from which on a database that has worked on them is not used again: what DuckDB
allocates for that stays with the process until the database is closed."""

_RESULT_ROWS = 16_384
"""Rows per batch of a result that is read while the query runs."""


class MalformedImageError(TransformError):
    """A record of the chunk holds an image that is not DynamoDB JSON; the chunk was not read.

    `items.images.image_failures` finds the records whose images are not JSON.
    """


class FailingValueError(ExpressionError):
    """An expression can't take a value of the chunk: a cast fails, for example."""


@dataclass(frozen=True, slots=True)
class Unread:
    """A table that is read on first use; binding a query needs its columns only.

    `read` returns the same rows on every call, with at least the images requested.
    """

    schema: pa.Schema
    read: Callable[[frozenset[str]], pa.Table]


@dataclass(frozen=True, slots=True)
class Coming:
    """Rows that a query fetches while it runs, holding only those that it is working on.

    Args:
        schema: Schema of the rows.
        batches: Rows, fetched by DuckDB's threads, one thread at a time. An exception raised here
            ends the query and propagates unchanged.
        wants_more: Called with the bytes of each batch of the result. Once it returns False, no
            more rows are fetched, and the result is that of the rows fetched before.
    """

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    wants_more: Callable[[int], bool]


class Session:
    """A DuckDB database that holds the tables of one chunk.

    Several threads may share a session; its calls wait for each other. SQL can reach nothing but
    these tables: see `Database`.

    Args:
        tables: Arrow tables, or an `Unread` to read one later, by their names in SQL. Not copied.
        memory_limit_bytes: DuckDB's limit for intermediate results.
        threads: Number of DuckDB threads; None for DuckDB's default (one per core).
        databases: Pool that the session takes its database from and later returns it to. None
            gives the session its own database, closed with the session.
        notes: Notes that the queries write about paths.
        later: Whether the database is taken by the first query.
    """

    def __init__(
        self,
        tables: Mapping[str, pa.Table | Unread],
        *,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        threads: int | None = None,
        databases: Databases | None = None,
        notes: PathNotes | None = None,
        later: bool = False,
    ) -> None:
        self._notes = notes or PathNotes()
        self._tables = dict(tables)
        self._images_read: dict[str, frozenset[str]] = {}
        self._rows_read: dict[str, pa.Table] = {}
        self._unregistered: dict[str, pa.Table] = {}  # most items are read without SQL over them
        self._memory_limit_bytes = memory_limit_bytes
        self._threads = threads
        self._databases = databases
        self._lock = threading.RLock()
        self._taken: Database | None = None
        if not later:
            self._take()

    def _take(self) -> Database:
        """Return the database, with the session's tables; the first call takes it."""
        with self._lock:
            if self._taken is None:
                database = self._taken = self._take_database(self._threads)
                tables = tuple(self._tables)
                self._finalizer = weakref.finalize(
                    self, _release, database, self._databases, tables
                )
                for name, table in self._tables.items():
                    self._register(name, _empty(table) if isinstance(table, Unread) else table)
            return self._taken

    @property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        return self._take().connection

    @property
    def table_names(self) -> list[str]:
        """Names of the tables in the session."""
        return list(self._tables)

    @property
    def is_unread(self) -> bool:
        """Whether the session has a table of which nothing has been read."""
        return any(
            isinstance(table, Unread) and name not in self._images_read
            for name, table in self._tables.items()
        )

    def with_table(self, name: str, table: pa.Table) -> Session:
        """Return another session with one more table and without the tables that are unread."""
        read = {known: rows for known, rows in self._tables.items() if not isinstance(rows, Unread)}
        return Session(
            {**read, name: table},
            memory_limit_bytes=self._memory_limit_bytes,
            threads=self._threads,
            databases=self._databases,
            notes=self._notes,
            later=True,
        )

    def ask(self, query: str, value: str) -> str:
        """Return the text that a query gives for one text parameter; the answer may be cached."""
        if self._databases is None:
            return self._ask(query, value)
        return self._databases.answer(query, value, self._ask)

    def _ask(self, query: str, value: str) -> str:
        with self._lock:
            row = self._connection.execute(query, [value]).fetchall()[0]
        return str(row[0])

    def columns(self, query: str) -> list[tuple[str, str]]:
        """Return names and DuckDB types of a query's columns, by binding it and reading nothing.

        Raises:
            duckdb.Error: The query does not bind.
        """
        with self._lock:
            rows = self._connection.execute(f"DESCRIBE {query}").fetchall()
        return [(str(row[0]), str(row[1])) for row in rows]

    def types(self, query: str) -> list[str] | None:
        """Return the DuckDB types of a query's columns; None if it does not bind."""
        try:
            return [kind for _, kind in self.columns(query)]
        except duckdb.Error:
            return None

    def columns_of(self, query: str, name: str, schema: pa.Schema) -> list[tuple[str, str]]:
        """Return names and DuckDB types of a query's columns over one more table.

        Raises:
            duckdb.Error: The query does not bind.
        """
        with self._lock:
            self._register(name, schema.empty_table())
            try:
                return self.columns(query)
            finally:
                self._connection.unregister(name)

    def read(self, images: frozenset[str]) -> None:
        """Read the unread tables with at least these images, so that `table` can query them."""
        with self._lock:
            for name, table in self._tables.items():
                known = self._images_read.get(name)
                if isinstance(table, Unread) and (known is None or not images <= known):
                    wanted = images | (known or frozenset())
                    rows = _in_schema(table.read(wanted), table.schema)
                    self._unregistered[name] = rows
                    self._rows_read[name] = rows
                    self._images_read[name] = wanted

    def rows(self, name: str) -> pa.Table:
        """Return a table of the session, as `read` has read it."""
        with self._lock:
            rows = self._rows_read.get(name, self._tables[name])
        assert isinstance(rows, pa.Table), "the table was read"
        return rows

    def table(self, query: str) -> pa.Table:
        """Run a query over the tables as `read` has read them.

        Raises:
            duckdb.Error: The query fails.
        """
        with self._lock:
            self._retain(sum(rows.nbytes for rows in self._rows_read.values()))
            for name, table in list(self._unregistered.items()):
                self._register(name, table)
                del self._unregistered[name]
            return self._run(query)

    @contextmanager
    def holding(self, name: str, rows: pa.Table) -> Iterator[None]:
        """Have one more table while the block runs."""
        with self._lock:
            self._retain(rows.nbytes)
            self._register(name, rows)
            try:
                yield
            finally:
                self._connection.unregister(name)

    def table_of(self, query: str, name: str, rows: pa.Table) -> pa.Table:
        """Run a query over one more table, which the session does not keep.

        Raises:
            duckdb.Error: The query fails.
        """
        with self.holding(name, rows):
            return self._run(query)

    def table_over(self, query: str, name: str, rows: pa.Table | Coming) -> pa.Table:
        """Run a query with the given rows instead of a table that is unread.

        Raises:
            duckdb.Error: The query fails.
        """
        if isinstance(rows, Coming):
            # The batches arrive one by one: a second thread would cost more CPU, and wait.
            database = self._take_database(threads=1)
            try:
                return _run_over(database.connection, query, name, rows)
            finally:
                _release(database, self._databases, (name,))
        with self._lock:
            self._retain(rows.nbytes)
            self._register(name, rows)
            try:
                return self._run(query)
            finally:
                self._register(name, _empty(self._tables[name]))

    def _take_database(self, threads: int | None) -> Database:
        if self._databases is None:
            database = Database(self._memory_limit_bytes, threads)
        else:
            database = self._databases.take(self._memory_limit_bytes, threads)
        note_pad_of(database).notes = self._notes
        return database

    def _run(self, query: str) -> pa.Table:
        table = self._connection.sql(query).to_arrow_table()
        assert isinstance(table, pa.Table)  # DuckDB's stubs leave the type open
        return table

    def _retain(self, row_bytes: int) -> None:
        """Record that a query works on rows of this size."""
        if row_bytes > _RETAINED_BYTES:
            self._take().retains_memory = True

    def _register(self, name: str, table: pa.Table) -> None:
        batches = map(_from_offset_0, table.to_batches(max_chunksize=_rows_at_a_time(table)))
        self._connection.register(name, pa.Table.from_batches(batches, table.schema))

    def close(self) -> None:
        """Free the memory and the temporary folder now; frames of the session become unreadable."""
        if self._taken is not None:
            self._finalizer()


def _run_over(
    connection: duckdb.DuckDBPyConnection, query: str, name: str, rows: Coming
) -> pa.Table:
    input_batches = _StoppableBatches(rows.batches)
    connection.register(name, pa.RecordBatchReader.from_batches(rows.schema, input_batches))
    result: list[pa.RecordBatch] = []
    try:
        reader = connection.sql(query).to_arrow_reader(_RESULT_ROWS)
        for batch in reader:
            result.append(_in_exact_buffers(batch))
            if not rows.wants_more(batch.nbytes):
                input_batches.stop()
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        if input_batches.error is not None:
            raise input_batches.error from None
        # Arrow passes on only the text of an error that occurs while the result is read.
        raise error if isinstance(error, duckdb.Error) else duckdb.Error(str(error)) from error
    return pa.Table.from_batches(result, reader.schema)


def _in_exact_buffers(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a copy of a batch: DuckDB's buffers of texts are up to twice as large as the texts.

    Each column has memory of its own, which is freed with it.
    """
    columns = [
        pa.ipc.read_record_batch(one.serialize(), one.schema).column(0)
        for one in map(batch.select, ([at] for at in range(batch.num_columns)))
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


class _StoppableBatches:
    """Batches sized for DuckDB, until `stop`; `error` keeps the exception of the source."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self._stopped = False
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Yield no further batches."""
        self._stopped = True

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches:
                rows = _rows_at_a_time(batch)
                for start in range(0, batch.num_rows, rows):
                    if self._stopped:
                        return
                    yield batch.slice(start, rows)
        except BaseException as error:
            self.error = error
            raise


def _from_offset_0(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose nested columns are no slices: DuckDB refuses structs in a slice."""
    columns = [
        pa.concat_arrays([column, column.slice(0, 0)])
        if pa.types.is_nested(column.type) and len(column)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _rows_at_a_time(rows: pa.Table | pa.RecordBatch) -> int:
    row_bytes: int = rows.nbytes // max(rows.num_rows, 1) + 1
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))


def _in_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the unread columns as nulls, because expressions bound later may name them."""
    columns = [
        rows[field.name] if field.name in rows.column_names else pa.nulls(len(rows), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _empty(table: pa.Table | Unread) -> pa.Table:
    return table.schema.empty_table()


def _release(database: Database, databases: Databases | None, tables: Sequence[str]) -> None:
    if databases is None:
        database.close()
    else:
        databases.put_back(database, tables)
