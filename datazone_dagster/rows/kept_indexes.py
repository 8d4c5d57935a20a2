"""Key indexes that a process keeps, of the row groups whose keys it reads repeatedly.

A data file never changes, so an index made from it is as true as the file. Which files and rows
count is read from the table's log each time. The second read of a row group makes its index, from
the keys that are decoded anyway: a process that merges once pays nothing. Maintenance makes the
indexes of the files that replace indexed ones. Nothing is stored: a stored index has nearly as many
bytes as the key column that it would save reading.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.size_policy import APPLY_BUDGET_BYTES, key_index_bytes
from datazone_dagster.rows.key_index import MOST_ROWS, ROW_BYTES, KeyIndex, KeyIndexBuilder

MOST_BYTES = key_index_bytes(APPLY_BUDGET_BYTES)
"""Memory of the indexes of a process by default: eleven million rows. Row groups for which there is
no room are read each time."""

FILE_BYTES = 2048
"""Memory of what is kept of a file beside its indexes, approximately."""

IDLE_SECONDS = 120.0
"""Time without a lookup after which a table makes room for others. Not earlier: indexes that
replace each other cost more than none."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a file, as its footer describes it.

    Args:
        number: Its number in the file.
        rows: Positions of its rows in the file.
        low: Lower bound of its keys; None: unknown.
        high: Upper bound of its keys; None: unknown.
        highest_version: Upper bound of its versions; None: unknown.
    """

    number: int
    rows: range
    low: str | None
    high: str | None
    highest_version: str | None


@dataclass(slots=True)
class KeptFile:
    """Knowledge of a data file.

    Args:
        identity: What tells the file from any other one that was ever at its path.
        is_kept: Whether it stays after the lookup.
        size_bytes: Memory that it takes.
        groups: Its row groups; None until its footer was read.
        read_once: Row groups whose keys were read, by number.
        indexes: Indexes of row groups, by number; None: it can't have one.
        hashed: The keys of the full file, if this process has written it, until its row groups are
            known.
    """

    identity: str
    is_kept: bool = False
    size_bytes: int = 0
    groups: Sequence[RowGroup] | None = None
    read_once: set[int] = field(default_factory=set)
    indexes: dict[int, KeyIndex | None] = field(default_factory=dict)
    hashed: KeyIndexBuilder | None = None


@dataclass(slots=True)
class _KeptTable:
    used_seconds: float
    version: int = -1
    files: dict[str, KeptFile] = field(default_factory=dict)


class KeptIndexes:
    """Key indexes of the tables that a process merges into. Threads may share it.

    Args:
        most_bytes: Memory that it may take.
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(
        self, most_bytes: int = MOST_BYTES, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.size_bytes = 0
        """Memory that it takes, with what is reserved for indexes being made."""
        self._most_bytes = most_bytes
        self._monotonic = monotonic
        self._tables: dict[str, _KeptTable] = {}
        self._lock = Lock()

    def limit(self, most_bytes: int) -> None:
        """Set the memory that it may take; drop everything if it takes more."""
        with self._lock:
            self._most_bytes = most_bytes
            if self.size_bytes > most_bytes:
                for uri in list(self._tables):
                    self._drop_table(uri)

    def files_of(self, snapshot: Snapshot) -> Callable[[LiveFile], KeptFile]:
        """Begin a lookup in a table; return the function that returns what is kept of a file.

        What is kept of files that the table no longer has is dropped.
        """
        with self._lock:
            table = self._tables.setdefault(snapshot.store.uri, _KeptTable(0.0))
            table.used_seconds = self._monotonic()
            if table.version != snapshot.version:
                table.version = snapshot.version
                live = {file.path for file in snapshot.files} if table.files else set()
                for path in table.files.keys() - live:
                    self._drop(table.files.pop(path))
        return lambda file: self._of_file(snapshot, table, file)

    def _of_file(self, snapshot: Snapshot, table: _KeptTable, file: LiveFile) -> KeptFile:
        """Return what is kept of a file, or an empty one, which stays if there is room.

        A local file is compared with the one that was known. In an object store that costs a
        request: there, what the log says of the file has to do.
        """
        store = snapshot.store
        identity = store.identity_of(file.path) if store.is_local else _in_log(file)
        with self._lock:
            kept = table.files.get(file.path)
            if kept is not None and kept.identity != identity:
                self._drop(table.files.pop(file.path))
                kept = None
            if kept is None:
                kept = KeptFile(identity or "")
                is_known = identity is not None and self._tables.get(store.uri) is table
                if is_known and self._has_room(FILE_BYTES, table):
                    kept.is_kept = True
                    table.files[file.path] = kept
                    self._charge(kept, FILE_BYTES)
        return kept

    def found(self, kept: KeptFile, groups: Sequence[RowGroup]) -> None:
        """Note the row groups of a file; what is known of its keys becomes their indexes."""
        with self._lock:
            kept.groups, hashed, kept.hashed = groups, kept.hashed, None
            if hashed is None:
                return
            self._charge(kept, -ROW_BYTES * hashed.rows)
            if sum(len(group.rows) for group in groups) != hashed.rows:
                return
            for group in groups:
                index = hashed.built(group.rows)
                if index is not None:
                    kept.indexes[group.number] = index
                    self._charge(kept, ROW_BYTES * len(group.rows))

    def moved(
        self, snapshot: Snapshot, files: Sequence[LiveFile], rows: int
    ) -> KeyIndexBuilder | None:
        """Return a builder for the file that is to replace these; None: they have few indexes.

        What is kept of them makes room for the new file, which `written` is told of.

        Args:
            snapshot: The table.
            files: Files of the table.
            rows: Number of the rows of the new file.
        """
        with self._lock:
            table = self._tables.get(snapshot.store.uri)
            if table is None:
                return None
            kept = [table.files[file.path] for file in files if file.path in table.files]
            indexes = (index for one in kept for index in one.indexes.values())
            indexed_rows = sum(len(index.words) for index in indexes if index is not None)
            if not rows or 2 * indexed_rows < rows:
                return None
            for file in files:
                if file.path in table.files:
                    self._drop(table.files.pop(file.path))
            return KeyIndexBuilder(rows)

    def written(self, snapshot: Snapshot, file: LiveFile, builder: KeyIndexBuilder) -> None:
        """Keep what is known of the keys of a new file, if there is room.

        If the file never becomes one of the table, that is dropped with the table's next version.
        """
        table = self._tables.get(snapshot.store.uri)
        if table is not None:
            kept = self._of_file(snapshot, table, file)
            with self._lock:
                more_bytes = ROW_BYTES * builder.rows
                if kept.is_kept and self._has_room(more_bytes, table):
                    kept.hashed = builder
                    self._charge(kept, more_bytes)

    @contextmanager
    def builders(
        self, snapshot: Snapshot, kept: KeptFile, groups: Sequence[RowGroup]
    ) -> Iterator[dict[int, KeyIndexBuilder]]:
        """Provide builders, by number, of the indexes that reading these row groups is to make.

        The indexes are kept if the reading succeeds. A row group that is read for the first time,
        or for whose index there is no room, has no builder.
        """
        due = [group for group in groups if self._is_due(snapshot.store.uri, kept, group)]
        made: dict[int, KeyIndex | None] = {}
        builders = {group.number: KeyIndexBuilder(len(group.rows)) for group in due}
        try:
            yield builders
            made = {number: builder.built() for number, builder in builders.items()}
        finally:
            with self._lock:
                for group in due:
                    # Another thread may have made the same one.
                    if made.get(group.number) is None or group.number in kept.indexes:
                        self._charge(kept, -ROW_BYTES * len(group.rows))
                kept.indexes.update(made)

    def _is_due(self, uri: str, kept: KeptFile, group: RowGroup) -> bool:
        """Return whether a row group is to get an index now; its memory is reserved then."""
        with self._lock:
            if not kept.is_kept or group.number in kept.indexes or len(group.rows) > MOST_ROWS:
                return False
            if group.number not in kept.read_once:
                kept.read_once.add(group.number)
                return False
            more_bytes = ROW_BYTES * len(group.rows)
            if not self._has_room(more_bytes, self._tables.get(uri)):
                return False
            self._charge(kept, more_bytes)
            return True

    def _has_room(self, more_bytes: int, table: _KeptTable | None) -> bool:
        """Return whether there is room for more, after idle tables have made room."""
        if self.size_bytes + more_bytes > self._most_bytes:
            long_ago = self._monotonic() - IDLE_SECONDS
            for uri, other in list(self._tables.items()):
                if other is not table and other.used_seconds < long_ago:
                    self._drop_table(uri)
        return self.size_bytes + more_bytes <= self._most_bytes

    def _charge(self, kept: KeptFile, more_bytes: int) -> None:
        if kept.is_kept:
            kept.size_bytes += more_bytes
            self.size_bytes += more_bytes

    def _drop_table(self, uri: str) -> None:
        for kept in self._tables.pop(uri).files.values():
            self._drop(kept)

    def _drop(self, kept: KeptFile) -> None:
        """Let go of a file; a lookup that still uses it keeps nothing."""
        kept.is_kept = False
        self.size_bytes -= kept.size_bytes


def _in_log(file: LiveFile) -> str:
    return f"{file.size_bytes}-{file.add.get('modificationTime')}"


KEPT_INDEXES = KeptIndexes()
"""The indexes of this process."""
