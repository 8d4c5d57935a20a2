"""One DuckDB database per chunk: bounded in memory, closed to the outside, locked."""

from __future__ import annotations

import os
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from datazone_dagster.errors import TransformError

DEFAULT_MEMORY_LIMIT_BYTES = 512 * 1024 * 1024
_BATCH_ROWS = 16_384  # DuckDB reads Arrow batches in parallel, one table in one piece not at all
_BATCH_BYTES = 2 << 20
"""DuckDB works on 2,048 rows at a time, or on an Arrow batch if that has fewer: of large items it
would hold everything several times over."""


class MalformedImageError(TransformError):
    """A record of the chunk holds an image that is not JSON; nothing of the chunk was read.

    `decode.images.image_failures` finds the records.
    """


@dataclass(frozen=True, slots=True)
class Unread:
    """A table that is read when a query first runs; binding needs its columns only."""

    schema: pa.Schema
    read: Callable[[], pa.Table]


class Session:
    """A DuckDB database that holds the tables of one chunk.

    Several threads may use it; calls wait for each other. It can't reach files, the network
    or Python variables, and its configuration is locked, so SQL can't change that. What does
    not fit the memory limit spills to a temporary directory that goes with the session.

    Args:
        tables: Arrow tables by the name that SQL knows them by, or how to read them. They are
            not copied.
        memory_limit_bytes: What DuckDB may use for intermediate results.
        threads: Of DuckDB; None leaves it to DuckDB (one per core).
    """

    def __init__(
        self,
        tables: Mapping[str, pa.Table | Unread],
        *,
        memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
        threads: int | None = None,
    ) -> None:
        self._tables = dict(tables)
        self._memory_limit_bytes = memory_limit_bytes
        self._threads = threads
        spill = tempfile.TemporaryDirectory(prefix="datazone-frame-", ignore_cleanup_errors=True)
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_limit_bytes // 1024}KiB",
            "temp_directory": spill.name,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": str(threads or os.cpu_count() or 1),
        }
        self._lock = threading.RLock()
        self._connection = duckdb.connect(config=config)
        self._finalizer = weakref.finalize(self, _close, self._connection, spill)
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET enable_external_access = false")
        for name, table in tables.items():
            self._register(name, table.schema.empty_table() if _is_unread(table) else table)
        self._connection.execute("SET lock_configuration = true")

    @property
    def table_names(self) -> list[str]:
        """The tables that it holds."""
        return list(self._tables)

    @property
    def is_unread(self) -> bool:
        """Whether there is a table that no query has read so far."""
        return any(map(_is_unread, self._tables.values()))

    def with_table(self, name: str, table: pa.Table) -> Session:
        """Another session like this one, with one more table."""
        with self._lock:
            self._read()
        return Session(
            {**self._tables, name: table},
            memory_limit_bytes=self._memory_limit_bytes,
            threads=self._threads,
        )

    def ask(self, query: str, value: str) -> str:
        """The one text that a query of one text parameter returns."""
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

    def table(self, query: str) -> pa.Table:
        """Runs a query.

        Raises:
            duckdb.Error: It fails.
        """
        with self._lock:
            self._read()
            return self._run(query)

    def table_over(self, query: str, name: str, table: pa.Table) -> pa.Table:
        """Runs a query with another table in the place of one that is unread.

        Raises:
            duckdb.Error: It fails.
        """
        with self._lock:
            self._register(name, table)
            try:
                return self._run(query)
            finally:
                self._register(name, table.schema.empty_table())

    def _run(self, query: str) -> pa.Table:
        table = self._connection.sql(query).to_arrow_table()
        assert isinstance(table, pa.Table)  # DuckDB's stubs leave it open
        return table

    def _read(self) -> None:
        for name, table in self._tables.items():
            if isinstance(table, Unread):
                self._tables[name] = read = table.read()
                self._register(name, read)

    def _register(self, name: str, table: pa.Table) -> None:
        row_bytes = table.nbytes // max(len(table), 1) + 1
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
        batches = table.to_batches(max_chunksize=rows)
        self._connection.register(name, pa.Table.from_batches(batches, table.schema))

    def close(self) -> None:
        """Frees the memory and the temporary directory now; frames of it can't be read more."""
        self._finalizer()


def _is_unread(table: pa.Table | Unread) -> bool:
    return isinstance(table, Unread)


def _close(connection: duckdb.DuckDBPyConnection, spill: tempfile.TemporaryDirectory[str]) -> None:
    connection.close()
    spill.cleanup()
