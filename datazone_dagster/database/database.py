"""DuckDB databases: bounded in memory, isolated, with a locked configuration, and reused.

Every DuckDB database of the package is opened here: `tests/test_structure.py` finds any other.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import duckdb

from datazone_dagster.database.spill import SpillFolder, remove_abandoned
from datazone_dagster.errors import OutOfMemoryError
from datazone_dagster.model.memory_budget import within
from datazone_dagster.process import container

DEFAULT_MEMORY_LIMIT_BYTES = 512 * 1024 * 1024

_ANSWERS = 1024
"""Limit of cached answers: most functions repeat a few expressions, some always make new ones."""


class Database:
    """A DuckDB database in memory that spills to its own folder beyond its memory limit.

    SQL can't reach files, the network or Python variables. The configuration is locked, so SQL
    can't lift these limits.

    Args:
        memory_limit_bytes: DuckDB's limit for intermediate results; never more than half of the
            memory of the container or machine.
        threads: Number of DuckDB threads; None: one per core that the process may use.
    """

    def __init__(self, memory_limit_bytes: int, threads: int | None) -> None:
        self.settings = (memory_limit_bytes, threads)
        self.retains_memory = False
        """Whether the database may retain memory from rows that it read, and so is not reused."""
        _clean_up_once()
        self._spill = SpillFolder()
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{_within_container(memory_limit_bytes) // 1024}KiB",
            "temp_directory": self._spill.path,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": str(threads or container.usable_cores()),
        }
        self.connection = duckdb.connect(config=config)
        self.connection.execute("SET TimeZone = 'UTC'")
        # It would be drawn on the user's output, where DuckDB takes the process for a shell.
        self.connection.execute("SET enable_progress_bar = false")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def close(self) -> None:
        """Free the memory and remove the spill folder now."""
        self.connection.close()
        self._spill.remove()


def _within_container(wanted: int) -> int:
    return within(wanted, container.memory_limit_bytes())


class Task(NamedTuple):
    """What a database is for, as its error says when the memory is not enough."""

    doing: str
    safe: str
    hint: str


OF_A_CHUNK = Task(
    "compare the changes of a chunk with those before",
    "Nothing of this chunk was applied; the change log keeps it.",
    "Raise ApplySettings(memory_budget=...): DuckDB gets a quarter of it.",
)


@contextmanager
def opened(
    memory_limit_bytes: int = DEFAULT_MEMORY_LIMIT_BYTES,
    threads: int | None = 1,
    *,
    task: Task = OF_A_CHUNK,
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database for one task, and close it with its spill folder at the end.

    Args:
        memory_limit_bytes: As for `Database`.
        threads: As for `Database`.
        task: The task, for the error.

    Raises:
        OutOfMemoryError: The task needs more memory than the limit.
    """
    database = Database(memory_limit_bytes, threads)
    try:
        yield database.connection
    except duckdb.OutOfMemoryException as error:
        raise OutOfMemoryError(
            f"DuckDB needs more than its {memory_limit_bytes >> 20} MiB to {task.doing}.",
            safe=task.safe,
            hint=task.hint,
        ) from error
    finally:
        database.close()


class Databases:
    """Pool of the databases of one run; opening a database takes 15 ms of CPU."""

    def __init__(self) -> None:
        self._idle: list[Database] = []
        self._answers: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    def take(self, memory_limit_bytes: int, threads: int | None) -> Database:
        """Return an idle database without tables, or open a new one."""
        settings = (memory_limit_bytes, threads)
        with self._lock:
            for database in self._idle:
                if database.settings == settings:
                    self._idle.remove(database)
                    return database
        return Database(*settings)

    def put_back(self, database: Database, tables: Iterable[str]) -> None:
        """Unregister the tables and make the database idle; close it if it retains memory."""
        if database.retains_memory:
            database.close()
            return
        for name in tables:
            database.connection.unregister(name)
        with self._lock:
            self._idle.append(database)

    def answer(self, query: str, value: str, ask: Callable[[str, str], str]) -> str:
        """Return the cached answer of a deterministic query, running it only the first time."""
        cached = self._answers.get((query, value))
        if cached is None:
            cached = ask(query, value)
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            self._answers[query, value] = cached
        return cached


@functools.cache
def _clean_up_once() -> None:
    """Remove the spill folders of killed processes, with the first database of this process."""
    remove_abandoned()


def _close_all(databases: list[Database]) -> None:
    for database in databases:
        database.close()
