"""DuckDB databases: bounded in memory, closed to the outside, locked; and used again."""

from __future__ import annotations

import functools
import os
import threading
import weakref
from collections.abc import Callable, Iterable

import duckdb

from datazone_dagster.frame.spill import SpillFolder, remove_abandoned

_ANSWERS = 1024
"""A function names the same few expressions for every chunk, or new ones without end."""


class Database:
    """A DuckDB database in memory. What does not fit its limit spills to a directory of its own.

    It can't reach files, the network or Python variables, and its configuration is locked, so
    SQL can't change that.

    Args:
        memory_limit_bytes: What DuckDB may use for intermediate results.
        threads: Of DuckDB; None leaves it to DuckDB (one per core).
    """

    def __init__(self, memory_limit_bytes: int, threads: int | None) -> None:
        self.settings = (memory_limit_bytes, threads)
        self.is_full = False
        """Whether it may keep memory of what it has read: it is not used again then."""
        _clean_up_once()
        self._spill = SpillFolder()
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_limit_bytes // 1024}KiB",
            "temp_directory": self._spill.path,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "threads": str(threads or os.cpu_count() or 1),
        }
        self.connection = duckdb.connect(config=config)
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET enable_external_access = false")
        self.connection.execute("SET lock_configuration = true")

    def close(self) -> None:
        """Frees the memory and the directory now."""
        self.connection.close()
        self._spill.remove()


class Databases:
    """The databases of one run, for one use after another: to open one takes 15 ms of CPU."""

    def __init__(self) -> None:
        self._idle: list[Database] = []
        self._answers: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    def take(self, memory_limit_bytes: int, threads: int | None) -> Database:
        """One without tables that nobody else uses."""
        settings = (memory_limit_bytes, threads)
        with self._lock:
            for database in self._idle:
                if database.settings == settings:
                    self._idle.remove(database)
                    return database
        return Database(*settings)

    def release_memory(self, database: Database, tables: Iterable[str]) -> None:
        """Let others use it, once its tables are gone."""
        if database.is_full:
            database.close()
            return
        for name in tables:
            database.connection.unregister(name)
        with self._lock:
            self._idle.append(database)

    def answer(self, query: str, value: str, ask: Callable[[str, str], str]) -> str:
        """What a query gives that always gives the same: it is asked once."""
        known = self._answers.get((query, value))
        if known is None:
            known = ask(query, value)
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            self._answers[query, value] = known
        return known


@functools.cache
def _clean_up_once() -> None:
    """With the first database of a process: those of killed ones are gone then."""
    remove_abandoned()


def _close_all(databases: list[Database]) -> None:
    for database in databases:
        database.close()
