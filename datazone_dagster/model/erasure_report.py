"""Reports of an erasure. They hold no part of an erased key: a report outlives the data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TableErasure:
    """Erasure in one table: planned, or done.

    Args:
        table: Name of the table for people.
        uri: Location of the table.
        rows: Rows to erase or erased, those of files' hidden rows included.
        files: Files of the newest version that have them, rewritten without.
        size_bytes: Size of these files.
        old_files: Files of older versions, and orphans, with such rows: deleted.
        young_files: Files with such rows that a writer may be about to commit: not touched.
        log_files: Files of the Delta log that repeated values of erased rows: replaced.
        blocked: Why nothing can be erased from this table; None if nothing forbids it.
    """

    table: str
    uri: str
    rows: int = 0
    files: int = 0
    size_bytes: int = 0
    old_files: int = 0
    young_files: int = 0
    log_files: int = 0
    blocked: str | None = None


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """Erasure of some keys from all tables of a source.

    Args:
        source: Name of the source.
        keys: Number of keys.
        found: Labels of the keys that were found in a table.
        tables: Results by table.
        done: True if a last search through every file found nothing; always False for a plan.
        unreachable: Places that may have the keys and that the command does not reach.
    """

    source: str
    keys: int
    found: tuple[str, ...]
    tables: tuple[TableErasure, ...]
    done: bool = False
    unreachable: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows in all tables."""
        return sum(table.rows for table in self.tables)

    @property
    def blocked(self) -> tuple[TableErasure, ...]:
        """Tables that nothing can be erased from."""
        return tuple(table for table in self.tables if table.blocked is not None)

    @property
    def young_files(self) -> int:
        """Files that running writers may be about to commit."""
        return sum(table.young_files for table in self.tables)

    def to_json(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return asdict(self)
