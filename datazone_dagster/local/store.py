"""State of the local DynamoDB: one SQLite file in WAL mode.

One connection under one lock: every request is one transaction. So a killed server restarts
with complete requests only, and an item is never stored without its stream record.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_NAME = "local-dynamodb.sqlite3"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tables (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS items (
    table_number INTEGER NOT NULL, hash INTEGER NOT NULL, partition BLOB NOT NULL,
    sort BLOB NOT NULL, size_bytes INTEGER NOT NULL, item BLOB NOT NULL,
    PRIMARY KEY (table_number, hash, partition, sort)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS streams (
    number INTEGER PRIMARY KEY AUTOINCREMENT, arn TEXT NOT NULL UNIQUE, table_name TEXT NOT NULL,
    table_id TEXT NOT NULL, label TEXT NOT NULL, region TEXT NOT NULL, view_type TEXT NOT NULL,
    key_schema BLOB NOT NULL, created_at REAL NOT NULL, disabled_at REAL,
    last_sequence TEXT NOT NULL, last_shard_ms INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS shards (
    number INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL, shard_id TEXT NOT NULL,
    parent_id TEXT, starting TEXT NOT NULL, ending TEXT, hash_from INTEGER NOT NULL,
    hash_to INTEGER NOT NULL, opened_at REAL NOT NULL, closed_at REAL,
    trimmed_through TEXT NOT NULL DEFAULT '', dropped INTEGER NOT NULL DEFAULT 0,
    UNIQUE (stream, shard_id));
CREATE TABLE IF NOT EXISTS records (
    position INTEGER PRIMARY KEY, shard INTEGER NOT NULL, sequence TEXT NOT NULL,
    created_at REAL NOT NULL, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS records_by_shard ON records (shard, sequence);
CREATE TABLE IF NOT EXISTS writes (
    position INTEGER PRIMARY KEY AUTOINCREMENT, table_number INTEGER NOT NULL,
    hash INTEGER NOT NULL, partition BLOB NOT NULL, sort BLOB NOT NULL, at REAL NOT NULL,
    old_size_bytes INTEGER NOT NULL, old BLOB);
CREATE TABLE IF NOT EXISTS exports (
    number INTEGER PRIMARY KEY AUTOINCREMENT, arn TEXT NOT NULL UNIQUE, token TEXT NOT NULL UNIQUE,
    table_arn TEXT NOT NULL, document BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS kinesis_streams (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, region TEXT NOT NULL,
    created_at REAL NOT NULL, retention_hours INTEGER NOT NULL, held INTEGER NOT NULL DEFAULT 0,
    next_shard INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS kinesis_shards (
    number INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL, shard_id TEXT NOT NULL,
    parent_id TEXT, adjacent_id TEXT, hash_from INTEGER NOT NULL, hash_to INTEGER NOT NULL,
    starting TEXT NOT NULL, ending TEXT, last TEXT NOT NULL, closed_at REAL,
    trimmed_through TEXT NOT NULL DEFAULT '', UNIQUE (stream, shard_id));
CREATE TABLE IF NOT EXISTS kinesis_records (
    position INTEGER PRIMARY KEY, shard INTEGER NOT NULL, sequence TEXT NOT NULL,
    arrived_at REAL NOT NULL, partition_key TEXT NOT NULL, data BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS kinesis_records_by_shard ON kinesis_records (shard, sequence);
CREATE TABLE IF NOT EXISTS kinesis_held (
    position INTEGER PRIMARY KEY AUTOINCREMENT, stream INTEGER NOT NULL, hash INTEGER NOT NULL,
    partition_key TEXT NOT NULL, data BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS writes_by_table ON writes (table_number, position);
CREATE INDEX IF NOT EXISTS writes_by_key ON writes (table_number, hash, partition, sort, position);
"""

_ERASE = (
    "DELETE FROM records",
    "DELETE FROM shards",
    "DELETE FROM streams",
    "DELETE FROM items",
    "DELETE FROM writes",
    "DELETE FROM exports",
    "DELETE FROM tables",
    "DELETE FROM kinesis_records",
    "DELETE FROM kinesis_shards",
    "DELETE FROM kinesis_held",
    "DELETE FROM kinesis_streams",
    "DELETE FROM settings",
)


class Store:
    """SQLite file of a data directory.

    Args:
        directory: Data directory, which exists.

    Raises:
        sqlite3.Error: The file is unrecognised or damaged, or the disk refuses it.
    """

    def __init__(self, directory: Path) -> None:
        self._lock = threading.RLock()
        self._db = sqlite3.connect(
            directory / FILE_NAME, isolation_level=None, check_same_thread=False
        )
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA page_size = 8192")
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL survives a crash of the process; only a power cut can lose the last writes.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run the block as one transaction: all or nothing, one at a time."""
        with self._lock:
            self._db.execute("BEGIN")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def close(self) -> None:
        """Wait for the running request, then close the file."""
        with self._lock:
            self._db.close()


def erase(db: sqlite3.Connection) -> None:
    """Delete every table, item, stream, record and setting."""
    for statement in _ERASE:
        db.execute(statement)


def read_setting(db: sqlite3.Connection, name: str) -> str | None:
    """Return a stored setting, None if it was never written."""
    row = db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["value"])


def write_setting(db: sqlite3.Connection, name: str, value: str) -> None:
    """Store a setting that survives a restart."""
    db.execute("INSERT OR REPLACE INTO settings (name, value) VALUES (?, ?)", (name, value))
