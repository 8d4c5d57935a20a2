"""Notes of the queries over one chunk: attributes that a path finds, and values that it can't give.

A path such as `NewImage.total.N` is null for a record without the attribute, and for one whose
attribute has another type. The value alone does not tell them apart, so the query notes the second
while it runs, through functions that DuckDB calls for such records only.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import duckdb
import duckdb.func
import pyarrow as pa

from datazone_dagster.database.database import Database
from datazone_dagster.frame.path_checks import FOUND, OTHER_TYPE


class OtherType(NamedTuple):
    """Attribute of a path that has another descriptor: the path's field, which of its attributes
    (0 is the outermost), and the descriptor found."""

    field: str
    level: int
    descriptor: str


@dataclass
class PathNotes:
    """Notes of all queries over one chunk. Threads of DuckDB write them.

    `other_types` holds the changes by attribute, as `change_id`. `records` counts the records with
    an image that a field of the first argument was read from, `present` those with the attribute.
    A query may be run again, so the counts are upper limits.
    """

    other_types: dict[OtherType, set[int]] = field(default_factory=dict)
    records: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def clear(self) -> None:
        """Drop all notes: what was read is read again, or does not count."""
        with self.lock:
            self.other_types.clear()
            self.records.clear()
            self.present.clear()


class NotePad:
    """The notes that a database's functions write to; replaced with each session."""

    def __init__(self) -> None:
        self.notes = PathNotes()

    def install(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the functions known to a connection."""
        connection.create_function(
            OTHER_TYPE,
            self._note_other_types,
            ["VARCHAR", "INTEGER", "VARCHAR", "VARCHAR", "VARCHAR"],
            "BOOLEAN",
            type=duckdb.func.PythonUDFType.ARROW,
            null_handling=duckdb.func.FunctionNullHandling.SPECIAL,
        )
        connection.create_function(
            FOUND,
            self._note_found,
            ["VARCHAR", "BOOLEAN"],
            "BOOLEAN",
            type=duckdb.func.PythonUDFType.ARROW,
            null_handling=duckdb.func.FunctionNullHandling.SPECIAL,
        )

    def _note_other_types(
        self,
        fields: pa.ChunkedArray,
        levels: pa.ChunkedArray,
        keys: pa.ChunkedArray,
        versions: pa.ChunkedArray,
        descriptors: pa.ChunkedArray,
    ) -> pa.Array:
        """Note changes whose attribute has another descriptor; return true for each."""
        notes = self.notes
        columns = (fields, levels, keys, versions, descriptors)
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        with notes.lock:
            for name, level, key, version, descriptor in rows:
                if descriptor is not None:  # else it is not DynamoDB's JSON
                    found = OtherType(name, level, descriptor)
                    notes.other_types.setdefault(found, set()).add(change_id(key, version))
        return pa.repeat(pa.scalar(True), len(fields))

    def _note_found(self, fields: pa.ChunkedArray, present: pa.ChunkedArray) -> pa.Array:
        """Count the records with the attribute of a field; return true for each."""
        notes = self.notes
        if len(fields):
            with notes.lock:
                notes.records[fields[0].as_py()] += len(fields)
                notes.present[fields[0].as_py()] += sum(present.to_pylist())
        return pa.repeat(pa.scalar(True), len(fields))


_PADS: weakref.WeakKeyDictionary[Database, NotePad] = weakref.WeakKeyDictionary()


def note_pad_of(database: Database) -> NotePad:
    """Return the pad of a database, and make the functions known to it the first time."""
    pad = _PADS.get(database)
    if pad is None:
        pad = _PADS[database] = NotePad()
        pad.install(database.connection)
    return pad


def change_id(key: str, version: str) -> int:
    """Return a number for one change, the same within this process."""
    return hash((key, version))


def change_ids(keys: Iterable[str], versions: Iterable[str]) -> list[int]:
    """Return the numbers of changes, in their order."""
    return [change_id(key, version) for key, version in zip(keys, versions, strict=True)]
