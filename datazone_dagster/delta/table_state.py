"""State of a table that a process keeps, moved forward by asking for the next log entry only.

A snapshot that is behind is harmless: a commit on it loses the race, and its writer reads what it
missed. What must not happen is that a table made again, or restored from an older copy, looks
up to date because the next entry is absent, or that its entries are taken for the next ones. So the
state knows its newest entry as it was in the store, and compares it. On a local disk that is done
at every look. In an object store, where it costs a request, it is done at intervals, when there are
further entries, and before each commit (`delta.commit`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock, RLock

from deltalake import DeltaTable

from datazone_dagster.delta import (
    KIND,
    require_known_format,
    unreadable_error,
    unrecognised_error,
)
from datazone_dagster.delta.log_files import ENTRY, LOG, entry_actions, entry_path
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.store_access import delta_rs_options
from datazone_dagster.delta.transaction_log import (
    UNREADABLE,
    Anchor,
    Snapshot,
    newest_snapshot,
)
from datazone_dagster.errors import NewerTableError

FORWARD_MOST = 20
"""Entries that a state is moved forward by; from further behind, it is read anew."""

COMPARED_EVERY_SECONDS = 300.0
"""Interval at which a look compares the newest entry in an object store: entries are deleted after
an hour at the earliest, and a state that slept for longer would not find the next one."""

READERS_MOST = 8
TABLES_MOST = 1000
FILES_MOST = 250_000
"""Bounds of what a process keeps: the least recently used tables are dropped first."""


class KeptTable:
    """The newest known version of one table. Threads may share it.

    Args:
        uri: Location of the table.
        storage_options: Options of its store.
        kind: Kind that the table must have, see `datazone_dagster.delta.KIND`.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str], kind: str) -> None:
        self.uri = uri
        self.kind = kind
        self.store = TableStore(_as_uri(uri), storage_options)
        self.storage_options = dict(storage_options)
        self._lock = RLock()
        self._snapshot: Snapshot | None = None
        self._absent = False
        self._compared_at = 0.0
        self._handle: DeltaTable | None = None
        self._handle_options: dict[str, str] = {}
        self._lent: set[int] = set()

    def now(self) -> Snapshot | None:
        """Return the table as it is now; None if there is none. One request if nothing changed.

        Raises:
            UnrecognisedTableError: We did not create the table, or not for this purpose.
            NewerTableError: A newer version of the library has written it.
            StorageError: The table exists but can't be read.
        """
        with self._lock:
            try:
                self._look()
            except UNREADABLE as error:
                raise unreadable_error(self.uri, error) from error
            return self._snapshot

    def known(self) -> Snapshot | None:
        """Return the table as of the last look or commit, without a request; None: never seen."""
        return self._snapshot

    def seen(self) -> Snapshot | None:
        """Return what is known without a request, once anything is; a local table is looked at.

        Raises:
            UnrecognisedTableError: As in `now`.
            StorageError: As in `now`.
        """
        with self._lock:
            if self.store.is_local or (self._snapshot is None and not self._absent):
                return self.now()
            return self._snapshot

    def took(self, snapshot: Snapshot) -> Snapshot:
        """Take over the table after a commit of ours, without a read."""
        with self._lock:
            known = self._snapshot
            if known is None or snapshot.version > known.version:
                self._snapshot, self._absent = snapshot, False
        return snapshot

    def forget(self) -> None:
        """Drop what is known: the next look reads the table anew."""
        with self._lock:
            self._snapshot, self._absent, self._handle = None, False, None

    def handle(self, snapshot: Snapshot) -> DeltaTable:
        """Return a handle of delta-rs at exactly this version, which the caller may change.

        Give it back with `give_back` once no one uses it; the next one then costs less.

        Raises:
            DeltaError: The log can't be read.
            OSError: The store failed.
        """
        options = delta_rs_options(self.store.uri, self.storage_options)
        with self._lock:
            if options != self._handle_options:  # renewed: a handle has those of its opening
                self._handle, self._handle_options, self._lent = None, options, set()
            table, self._handle = self._handle, None
        if table is None:
            table = DeltaTable(self.store.uri, version=snapshot.version, storage_options=options)
        with self._lock:
            if options == self._handle_options:
                self._lent.add(id(table))
        if table.version() < snapshot.version:
            table.update_incremental()
        if table.version() != snapshot.version:
            table.load_as_version(snapshot.version)
        return table

    def give_back(self, table: DeltaTable) -> None:
        """Keep a handle for the next caller of `handle`."""
        with self._lock:
            if id(table) in self._lent:
                self._lent.discard(id(table))
                self._handle = table

    def checkpoint_made(self, version: int) -> None:
        """Record that the log has a checkpoint at this version now."""
        with self._lock:
            if self._snapshot is not None:
                self._snapshot = self._snapshot.with_checkpoint(version)

    def _look(self) -> None:
        known = self._snapshot
        if known is None:
            self._look_for_a_table()
        elif self.store.is_local:
            if _is_there(known):
                self._snapshot = self._forward(known, None)
            else:
                self._read_anew()
        elif abs(time.time() - self._compared_at) < COMPARED_EVERY_SECONDS:
            moved = self._forward(known, None)
            if moved is known or _is_there(known):
                self._snapshot = moved
            else:  # what came next is of a table made again
                self._read_anew()
        else:
            self._compare(known)
        if self._snapshot is not None and self._snapshot is not known:
            self._check(self._snapshot)

    def _look_for_a_table(self) -> None:
        recently = abs(time.time() - self._compared_at) < COMPARED_EVERY_SECONDS
        absent = self._absent and recently and not self.store.is_local
        if not absent or self.store.identity_of(entry_path(0)) is not None:
            self._read_anew()

    def _read_anew(self) -> None:
        self.forget()
        self._snapshot = newest_snapshot(self.store)
        self._absent = self._snapshot is None
        self._compared_at = time.time()

    def _compare(self, known: Snapshot) -> None:
        """Look with one listing, which shows the newest known entry and what came after it."""
        anchor = known.anchor
        found = self.store.identities_after(LOG, f"{known.version:020d}")
        if anchor is None or found.get(anchor.path.removeprefix(f"{LOG}/")) != anchor.identity:
            self._read_anew()
            return
        versions = [int(name[:20]) for name in found if ENTRY.fullmatch(name)]
        self._snapshot = self._forward(known, max(versions, default=known.version))
        self._compared_at = time.time()

    def _forward(self, known: Snapshot, newest: int | None) -> Snapshot | None:
        """Return the table with the entries after the known ones.

        Args:
            known: The table so far.
            newest: Newest version, if a listing has shown it.
        """
        actions, anchor, number = [], known.anchor, known.version
        for number, found in self._entries_after(known.version, newest):
            if number > known.version + FORWARD_MOST:
                self._read_anew()
                return self._snapshot
            actions.append(entry_actions(found[0]))
            anchor = Anchor(entry_path(number), found[1])
        if newest is not None and number < newest:
            self._read_anew()
            return self._snapshot
        return known.after(actions, anchor) if actions else known

    def _entries_after(
        self, version: int, newest: int | None
    ) -> Iterator[tuple[int, tuple[bytes, str]]]:
        """Yield the entries after a version; more and more at once where each costs a request."""
        count = 1
        while newest is None or version < newest:
            if newest is not None:
                count = min(newest - version, FORWARD_MOST + 1)
            numbers = range(version + 1, version + 1 + count)
            for number, found in zip(
                numbers, self.store.read_all_identified(map(entry_path, numbers)), strict=True
            ):
                if found is None:
                    return
                version = number
                yield number, found
            count = 1 if self.store.is_local else min(2 * count, READERS_MOST)

    def _check(self, snapshot: Snapshot) -> None:
        found = snapshot.configuration.get(KIND)
        if found != self.kind:
            self.forget()
            if found is not None:  # what was read is not read again under its own kind
                kept_table(self.uri, self.storage_options, found).took(snapshot)
            raise unrecognised_error(self.uri, self.kind, found)
        try:
            require_known_format(self.uri, snapshot.configuration)
        except NewerTableError:
            self.forget()
            raise


def _as_uri(uri: str) -> str:
    """Return a location as delta-rs spells it, whatever the working directory becomes."""
    return uri.rstrip("/") + "/" if "://" in uri else Path(uri).absolute().as_uri() + "/"


def _is_there(snapshot: Snapshot) -> bool:
    """Return whether the newest known entry is still the one that was read or written."""
    anchor = snapshot.anchor
    return anchor is not None and snapshot.store.identity_of(anchor.path) == anchor.identity


_Key = tuple[str, frozenset[tuple[str, str]], str]

_tables: OrderedDict[_Key, KeptTable] = OrderedDict()
_tables_lock = Lock()


def kept_table(uri: str, storage_options: Mapping[str, str], kind: str) -> KeptTable:
    """Return the state of a table that this process keeps, the same one for the same arguments."""
    key = (_as_uri(uri), frozenset(storage_options.items()), kind)
    with _tables_lock:
        found = _tables.get(key)
        if found is None:
            found = _tables[key] = KeptTable(uri, storage_options, kind)
            _drop_least_used()
        _tables.move_to_end(key)
    return found


def forget(uri: str) -> None:
    """Drop what this process knows of a table, whatever the options."""
    with _tables_lock:
        found = [table for key, table in _tables.items() if key[0] == _as_uri(uri)]
    for table in found:
        table.forget()


def _drop_least_used() -> None:
    files = 0
    for number, (key, table) in enumerate(reversed(list(_tables.items()))):
        known = table.known()
        files += 0 if known is None else len(known.by_identity) + len(known.remainder.removes)
        if number and (number >= TABLES_MOST or files > FILES_MOST):
            del _tables[key]
