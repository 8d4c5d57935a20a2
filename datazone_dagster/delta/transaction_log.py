"""Live files of a table with their deletion vectors, read from the Delta log.

delta-rs exposes neither the vectors of files nor the raw actions, and a commit of ours must
repeat both verbatim. The log is read as a checkpoint plus the entries after it, by the protocol's
"Action Reconciliation": the last action on (path, vector) counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from pyroaring import BitMap64

from datazone_dagster.delta import vectors
from datazone_dagster.delta.commit_history import with_commit
from datazone_dagster.delta.live_file import LiveFile, live_file
from datazone_dagster.delta.log_files import (
    ENTRY,
    LOG,
    Action,
    Checkpoint,
    checkpoint_actions,
    complete_checkpoints,
    entry_actions,
    entry_path,
    hinted_checkpoint,
    hinted_version,
    last_checkpoint,
)
from datazone_dagster.delta.log_remainder import Remainder
from datazone_dagster.delta.restore import Restore, restore_in
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.store_errors import storage_error
from datazone_dagster.delta.vectors import Vector, VectorError
from datazone_dagster.errors import StorageError
from datazone_dagster.model.table_commit import TableCommit

__all__ = [
    "LOG",
    "Action",
    "LiveFile",
    "Snapshot",
    "entry_actions",
    "entry_path",
    "read_snapshot",
]

VECTORS_FEATURE = "deletionVectors"
VECTORS_ENABLED = "delta.enableDeletionVectors"

NOTE = "datazone"
"""Key of our own notes in a commit info; what reads the log otherwise ignores it."""

NOTES_KEPT = 64
"""Number of notes that a snapshot carries, the newest ones."""

UNREADABLE = (OSError, pa.ArrowInvalid, ValueError, KeyError)
"""Errors of a log that can't be read: of the store, of a checkpoint, of an entry."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A file of the log as it was in the store: its path and its identity there."""

    path: str
    identity: str


@dataclass(frozen=True, slots=True)
class CommitNote:
    """Our own note in the commit info of a version: see `delta.commit`."""

    version: int
    content: Mapping[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """A table at one version."""

    store: TableStore
    version: int
    protocol: Action
    metadata: Action
    transactions: Mapping[str, int]
    by_identity: Mapping[tuple[str, str | None], LiveFile]
    checkpoint_version: int | None = field(default=None)
    """Version of the checkpoint read; opening the table costs the entries since then."""
    anchor: Anchor | None = field(default=None)
    """Newest entry as it was in the store, which tells this table from one made again there."""
    notes: tuple[CommitNote, ...] = field(default=())
    """Notes in the newest commits, as far as their entries were read; oldest first."""
    restore: Restore | None = field(default=None)
    """The newest RESTORE, as far as entries were read."""
    committed: frozenset[str] = field(default=frozenset())
    """Application ids with a commit since then, as far as entries were read."""
    remainder: Remainder = field(default=Remainder())
    """What a checkpoint needs besides."""
    history: tuple[TableCommit, ...] = field(default=())
    """The newest commits, as far as entries were read; oldest first."""

    @cached_property
    def files(self) -> tuple[LiveFile, ...]:
        """The live files, in the order of the log."""
        return tuple(self.by_identity.values())

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema in the Arrow types that we write."""
        return pa.schema(Schema.from_json(self.schema_text).to_arrow())

    def transaction(self, app_id: str) -> int:
        """Return the version last committed for an application id; 0 if none was."""
        return self.transactions.get(app_id, 0)

    def after(self, entries: Iterable[Sequence[Action]], anchor: Anchor | None = None) -> Snapshot:
        """Return the table after the next log entries, given by their actions.

        Args:
            entries: Actions of each entry, the next version first.
            anchor: The last of these entries in the store.
        """
        state, version = _State(self), self.version
        for actions in entries:
            version += 1
            state.take_entry(version, actions)
        return state.snapshot(self.store, version, self.checkpoint_version, anchor)

    def with_checkpoint(self, version: int) -> Snapshot:
        """Return the table where its log has a checkpoint of this version."""
        return replace(self, checkpoint_version=version, remainder=self.remainder.since(version))

    @property
    def configuration(self) -> Mapping[str, str]:
        """The table properties."""
        return self.metadata.get("configuration") or {}

    @property
    def schema_text(self) -> str:
        """The schema as stored in the log, in JSON."""
        return cast(str, self.metadata.get("schemaString") or "")

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """The partition columns, in the order of the table."""
        return tuple(self.metadata.get("partitionColumns") or ())

    @property
    def writes_vectors(self) -> bool:
        """Whether new vectors may be written."""
        features = self.protocol.get("writerFeatures") or ()
        return (
            VECTORS_FEATURE in features
            and self.configuration.get(VECTORS_ENABLED, "").lower() == "true"
        )

    @property
    def live_rows(self) -> int:
        """Rows of the table; for files without statistics, counted from their footers."""
        return sum(self.rows_in(file) - file.deleted for file in self.files)

    @property
    def deleted_rows(self) -> int:
        """Deleted rows that are still in a data file."""
        return sum(file.deleted for file in self.files)

    def rows_in(self, file: LiveFile) -> int:
        """Return the number of rows of a data file, deleted ones included."""
        if file.num_records is not None:
            return file.num_records
        with self.store.open(file.path, file.size_bytes) as handle:
            return int(pq.read_metadata(handle).num_rows)

    def deleted_in(self, file: LiveFile) -> BitMap64:
        """Return the positions of the deleted rows in a data file.

        Raises:
            StorageError: The file's vector is missing or damaged.
        """
        if file.vector is None:
            return BitMap64()
        try:
            if file.vector.storage_type == vectors.INLINE:
                return vectors.inline(file.vector)
            return vectors.in_file(self._vector_file(file.vector), file.vector)
        except VectorError as error:
            raise StorageError(
                f"The deletion vector of {file.path} in {self.store.uri} can't be used: {error}.",
                safe="Nothing was written.",
                hint="Restore the file from a backup, or the table to a version before the "
                "damage (RESTORE): the next run applies the changes since then again.",
            ) from error

    def _vector_file(self, vector: Vector) -> bytes:
        path = vector.path
        if urlsplit(path).scheme:
            root = self.store.uri.rstrip("/") + "/"
            if not path.startswith(root):
                raise VectorError(f"it is outside of the table, at {path}")
            path = path[len(root) :]
        content = self.store.read_constant(path)
        if content is None:
            raise VectorError(f"{path} is missing")
        return content


def read_snapshot(table: DeltaTable, storage_options: Mapping[str, str]) -> Snapshot:
    """Read the table at the version of this handle.

    Raises:
        StorageError: The log can't be read, or uses an unsupported feature.
    """
    return snapshot_at(TableStore(table.table_uri, storage_options), table.version())


def snapshot_at(store: TableStore, version: int) -> Snapshot:
    """Read a table at a version, without a handle.

    Raises:
        StorageError: The log can't be read, or has no such version any more.
    """
    try:
        checkpoint = last_checkpoint(store, version)
        after = -1 if checkpoint is None else checkpoint.version
        return _folded(store, checkpoint, range(after + 1, version + 1))
    except UNREADABLE as error:
        raise storage_error(
            f"The Delta log of {store.uri} can't be read",
            error,
            safe="Nothing was written.",
            hint="Check the store; if the log is damaged, restore it from a backup.",
        ) from error


def newest_snapshot(store: TableStore) -> Snapshot | None:
    """Read a table at its newest version, without a handle; None if there is no table.

    Raises:
        StorageError: The log can't be read: an entry is missing.
        OSError: The store failed.
        pa.ArrowInvalid: A checkpoint is damaged.
        ValueError: An entry is damaged.
    """
    if store.is_local:
        checkpoint = hinted_checkpoint(store)
        if checkpoint is not None or store.identity_of(entry_path(0)) is not None:
            after = -1 if checkpoint is None else checkpoint.version
            return _folded(store, checkpoint, itertools.count(after + 1))
    hinted = hinted_version(store)
    names = store.identities_after(LOG, f"{hinted or 0:020d}")
    found = complete_checkpoints(names)
    if hinted is not None and not found:
        names = store.identities_after(LOG, "")
        found = complete_checkpoints(names)
    checkpoint = max(found, key=lambda one: one.version, default=None)
    versions = [int(name[:20]) for name in names if ENTRY.fullmatch(name)]
    if checkpoint is None and not versions:
        return None
    after = -1 if checkpoint is None else checkpoint.version
    return _folded(store, checkpoint, range(after + 1, max(versions, default=after) + 1))


def _folded(store: TableStore, checkpoint: Checkpoint | None, versions: Iterable[int]) -> Snapshot:
    """Fold a checkpoint and the entries after it; endless versions end at the first missing one."""
    state, anchor, version = _State(), None, -1
    if checkpoint is not None:
        version = checkpoint.version
        others = []
        for action in checkpoint_actions(store, checkpoint):
            state.take(action)
            others += [] if "add" in action else [action]
        state.remainder = state.remainder.after(version, others)
    if isinstance(versions, range):
        found: Iterable[tuple[bytes, str] | None] = store.read_all_identified(
            map(entry_path, versions)
        )
    else:
        found = iter(lambda: store.read_identified(entry_path(version + 1)), None)
    for one in found:
        if one is None:
            raise unreadable(store, f"entry {version + 1} is missing")
        version += 1
        anchor = Anchor(entry_path(version), one[1])
        state.take_entry(version, entry_actions(one[0]))
    if anchor is None and checkpoint is not None:
        anchor = _anchor_of(store, checkpoint)
    return state.snapshot(
        store, version, None if checkpoint is None else checkpoint.version, anchor
    )


def _anchor_of(store: TableStore, checkpoint: Checkpoint) -> Anchor | None:
    """Return the entry of a checkpoint's version, or the checkpoint where the entry is gone."""
    for path in (entry_path(checkpoint.version), f"{LOG}/{checkpoint.names[0]}"):
        identity = store.identity_of(path)
        if identity is not None:
            return Anchor(path, identity)
    return None


def unreadable(store: TableStore, reason: str) -> StorageError:
    return StorageError(
        f"The Delta log of {store.uri} can't be read: {reason}.",
        safe="Nothing was written.",
        hint="Check the store; if the log is damaged, restore it from a backup.",
    )


class _State:
    """Fold over actions, on top of a snapshot whose mappings are copied before they change.

    The order within one entry is meaningless: removes are applied first.
    """

    def __init__(self, base: Snapshot | None = None) -> None:
        self._files: dict[tuple[str, str | None], LiveFile] | None = None
        self._transactions: dict[str, int] | None = None
        self._base = base
        self._protocol: Action = {} if base is None else base.protocol
        self._metadata: Action = {} if base is None else base.metadata
        self._notes: list[CommitNote] = [] if base is None else list(base.notes)
        self._restore = None if base is None else base.restore
        self.remainder = Remainder() if base is None else base.remainder
        self._history = () if base is None else base.history
        self._committed = set[str]() if base is None else set(base.committed)

    def take_entry(self, version: int, actions: Sequence[Action]) -> None:
        for action in actions:
            remove = action.get("remove")
            if remove is not None:
                self._own_files().pop(live_file(remove).identity, None)
        restore = restore_in(version, actions)
        if restore is not None:
            self._restore, self._committed = restore, set()
        self.remainder = self.remainder.after(version, actions)
        self._history = with_commit(self._history, version, actions)
        for action in actions:
            self.take(action)
            if action.get("txn") is not None:
                self._committed.add(action["txn"]["appId"])
            note = (action.get("commitInfo") or {}).get(NOTE)
            if note is not None:
                self._notes.append(CommitNote(version, note))

    def take(self, action: Action) -> None:
        if action.get("add") is not None:
            file = live_file(action["add"])
            self._own_files()[file.identity] = file
        elif action.get("txn") is not None:
            if self._transactions is None:
                self._transactions = {} if self._base is None else dict(self._base.transactions)
            self._transactions[action["txn"]["appId"]] = action["txn"]["version"]
        elif action.get("protocol") is not None:
            self._protocol = action["protocol"]
        elif action.get("metaData") is not None:
            self._metadata = action["metaData"]

    def snapshot(
        self,
        store: TableStore,
        version: int,
        checkpoint_version: int | None,
        anchor: Anchor | None,
    ) -> Snapshot:
        base = self._base
        shared: Mapping[Any, Any] = {}
        return Snapshot(
            store,
            version,
            self._protocol,
            self._metadata,
            transactions=self._transactions
            if self._transactions is not None
            else (shared if base is None else base.transactions),
            by_identity=self._files
            if self._files is not None
            else (shared if base is None else base.by_identity),
            checkpoint_version=checkpoint_version,
            anchor=anchor,
            notes=tuple(self._notes[-NOTES_KEPT:]),
            restore=self._restore,
            committed=frozenset(self._committed),
            remainder=self.remainder,
            history=self._history,
        )

    def _own_files(self) -> dict[tuple[str, str | None], LiveFile]:
        if self._files is None:
            self._files = {} if self._base is None else dict(self._base.by_identity)
        return self._files
