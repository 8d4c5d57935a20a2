"""The checkpoint table: one current row per shard. Each commit replaces all that may change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple
from urllib.parse import unquote
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.parquet as pq

from datazone_dagster.changelog.checkpoint_files import (
    CheckpointFile,
    checkpoint_of,
    file_in,
    file_of,
)
from datazone_dagster.changelog.checkpoint_parts import DoneRows, Rows, done_rows, parts_of
from datazone_dagster.changelog.checkpoint_rows import SCHEMA, rows_of
from datazone_dagster.changelog.orphan_files import delete_orphan_files
from datazone_dagster.delta import create_table, guarded, transaction
from datazone_dagster.delta.commit import FileActions, commit_files
from datazone_dagster.delta.data_file import write_data_file
from datazone_dagster.delta.live_file import LiveFile
from datazone_dagster.delta.log_upkeep import (
    NO_CLEANING,
    checkpoint_due,
    clean_log,
    make_checkpoint,
    vacuum,
)
from datazone_dagster.delta.table_state import KeptTable, kept_table
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.errors import ConcurrentWriterError, StorageError
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.checkpoint_merge import with_changes
from datazone_dagster.model.layout import Layout

KIND = "checkpoint"

RETENTION_HOURS = 1
LOG_RETENTION = timedelta(hours=1)

SAVE_ATTEMPTS = 30
"""Attempts at one save while other processes save, too."""

_CONFIGURATION = {
    **NO_CLEANING,
    "delta.logRetentionDuration": f"interval {RETENTION_HOURS} hours",
    # Longer than the time between two deletions of replaced files, as for the change log.
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS + 2} hours",
}


class _Written(NamedTuple):
    """A file that a save has written; none if there were no rows."""

    add: dict[str, Any] | None
    path: str | None
    file: CheckpointFile


class CheckpointTable:
    """The checkpoint table of one source."""

    def __init__(self, layout: Layout, source: str) -> None:
        self.uri = layout.checkpoint(source)
        self.app_id = f"drain/{source}"
        self.storage_options = layout.storage_options

    @property
    def table(self) -> KeptTable:
        """State of the table that this process keeps."""
        return kept_table(self.uri, self.storage_options, KIND)

    def open(self) -> CheckpointSnapshot | None:
        """Open the checkpoint as last saved; None if there is none."""
        return self._at(self.table.now())

    def known_or_created(self) -> CheckpointSnapshot:
        """Open the checkpoint without a request, once this process knows it.

        One that another process has saved since is no danger: a batch lands only on the newest
        one (`CheckpointSnapshot.require_newest`).
        """
        try:
            known = self._at(self.table.seen())
        except StorageError:  # its file may be deleted, if another process has saved since
            self.table.forget()
            known = None
        return known or self.open_or_create()

    def open_or_create(self) -> CheckpointSnapshot:
        """Open the checkpoint as last saved; create an empty table if there is none."""
        opened = self.open()
        if opened is not None:
            return opened
        create_table(
            self.uri,
            self.storage_options,
            KIND,
            SCHEMA,
            configuration=_CONFIGURATION,
            description="How far each shard was landed. Written by datazone_dagster only.",
        )
        created = self.open()
        assert created is not None, "the table was just created"
        return created

    def _at(self, snapshot: Snapshot | None) -> CheckpointSnapshot | None:
        return None if snapshot is None else CheckpointSnapshot(self, self.table, snapshot)


class CheckpointSnapshot:
    """The checkpoint table at one version."""

    def __init__(self, checkpoints: CheckpointTable, table: KeptTable, at: Snapshot) -> None:
        self._checkpoints = checkpoints
        self._table = table
        self._at = at
        self.checkpoint = self._base = _checkpoint_in(table, at)

    @property
    def saved_at(self) -> datetime | None:
        """Time of the last save, by the clock of its process; None if there was none."""
        written_ms = [file.add["modificationTime"] for file in self._at.files]
        if not written_ms:
            return None
        return datetime.fromtimestamp(max(written_ms) / 1000, timezone.utc)

    def require_newest(self) -> None:
        """Check that nobody has saved since: a batch lands only on the newest checkpoint.

        Raises:
            ConcurrentWriterError: Another process saved.
            StorageError: The store failed.
        """
        newest = self._table.now()
        if newest is None or newest.anchor != self._at.anchor:
            raise self._overtaken()

    def newest(self) -> Checkpoint:
        """Return the checkpoint as saved last, by any process.

        Raises:
            ConcurrentWriterError: The table is gone.
            StorageError: The store failed.
        """
        newest = self._table.now()
        if newest is None:
            raise self._overtaken()
        return _checkpoint_in(self._table, newest)

    def forget(self) -> None:
        """Let the next one who opens the checkpoint read it anew."""
        self._table.forget()

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace all rows with those of `checkpoint`.

        Raises:
            ConcurrentWriterError: Another drain saved since this snapshot.
            StorageError: The store failed.
        """
        app_id = self._checkpoints.app_id
        known = _done.get(self._table)
        if known is not None and known.path not in {file.path for file in self._at.files}:
            known = None
        parts = parts_of(checkpoint, known)
        with guarded(self._checkpoints.uri, "Saving the checkpoint"):
            written = [self._written(checkpoint, rows) for rows in (parts.rows, parts.done or {})]
            adds = [one.add for one in written if one.add is not None]
            kept = known.path if known is not None and parts.keeps else None
            removes = [file for file in self._at.files if file.path != kept]
            self._at = self._table.took(
                commit_files(
                    self._at,
                    FileActions(adds, removes, [one["path"] for one in adds]),
                    operation="WRITE",
                    parameters={"mode": "Overwrite"},
                    metrics={},
                    properties=transaction(app_id, self._at.transaction(app_id) + 1),
                )
            )
        self.checkpoint = self._base = checkpoint
        _parsed[self._table] = (self._at.by_identity, checkpoint)
        files = {one.path: one.file for one in written if one.path is not None}
        before = _files.get(self._table, {})
        _files[self._table] = {
            **{path: file for path, file in before.items() if path == kept},
            **files,
        }
        if not parts.keeps:
            _done.pop(self._table, None)
            path = written[-1].path
            if parts.done is not None and path is not None:
                _done[self._table] = DoneRows(
                    path, checkpoint.epoch, checkpoint.stream_arn, parts.done
                )

    def _written(self, checkpoint: Checkpoint, rows: Rows) -> _Written:
        found = rows_of(checkpoint, rows.values())
        add = write_data_file(self._table.store, SCHEMA, {}, found.to_batches())
        path = None if add is None else unquote(add["path"])
        return _Written(add, path, file_of(rows, checkpoint, found))

    def save_changes(self, checkpoint: Checkpoint) -> None:
        """Save what `checkpoint` has changed, on top of what other processes have saved.

        Of two saves by one plan, the second one does not know what the first one was merged with:
        it is merged with that again.

        Raises:
            ConcurrentWriterError: The table was made again, or others were faster all the time.
            StorageError: The store failed.
        """
        base, wanted, number = self._base, checkpoint, self._number
        if self.checkpoint is not base:
            wanted = with_changes(self.checkpoint, base, checkpoint)
        for attempts_left in reversed(range(SAVE_ATTEMPTS)):
            try:
                self.save(wanted)
                self._base = checkpoint
                return
            except ConcurrentWriterError:
                self._table.forget()
                newest = self._checkpoints.open()
                if not attempts_left or newest is None or newest._number < number:
                    raise
            self._at, self.checkpoint = newest._at, newest.checkpoint
            wanted = with_changes(newest.checkpoint, base, checkpoint)
            if wanted == newest.checkpoint:
                self._base = checkpoint
                return

    @property
    def _number(self) -> int:
        """Number of saves."""
        return self._at.transaction(self._checkpoints.app_id)

    def maintain_once(self) -> bool:
        """Write a checkpoint of the table if one is due; return whether one was.

        Raises:
            StorageError: The store failed.
        """
        if not checkpoint_due(self._at):
            return False
        with guarded(self._checkpoints.uri, "Writing a checkpoint of the checkpoint's table"):
            self._at = make_checkpoint(self._table, self._at)
        return True

    def delete_orphan_files(self) -> None:
        """Delete files that earlier commits replaced, or that no commit ever named.

        Meant to be called every hour.

        Raises:
            ConcurrentWriterError: Another commit came first; the next call deletes them.
            StorageError: The store failed; the next call deletes the remaining files.
        """
        with guarded(self._checkpoints.uri, "Removing replaced checkpoint files"):
            clean_log(self._at, LOG_RETENTION)
            vacuum(self._table, self._at, RETENTION_HOURS)
            delete_orphan_files(self._at, [""], timedelta(hours=RETENTION_HOURS))

    def _overtaken(self) -> ConcurrentWriterError:
        return ConcurrentWriterError(
            f"Another drain saved the checkpoint at {self._checkpoints.uri} meanwhile.",
            safe="Its checkpoint is valid; every landed batch is in the change log.",
            hint="This drain lost the commit race; the next one continues from the new state.",
        )


_parsed: WeakKeyDictionary[KeptTable, tuple[Any, Checkpoint]] = WeakKeyDictionary()
"""Checkpoint of each table, with the mapping of the snapshot whose files it was read from."""


_files: WeakKeyDictionary[KeptTable, Mapping[str, CheckpointFile]] = WeakKeyDictionary()
"""Files of each table's checkpoint as they were last known, by path."""


_done: WeakKeyDictionary[KeptTable, DoneRows] = WeakKeyDictionary()
"""Rows of finished shards of each table that are in a file of their own."""


def _checkpoint_in(table: KeptTable, at: Snapshot) -> Checkpoint:
    """Return the checkpoint at a version; a file is read once.

    Raises:
        StorageError: A file can't be read.
    """
    parsed = _parsed.get(table)
    if parsed is not None and parsed[0] is at.by_identity:
        return parsed[1]
    known = _files.get(table, {})
    with guarded(table.uri, "Reading the checkpoint"):
        files = {
            file.path: known.get(file.path) or file_in(_rows_in(table, file), known.values())
            for file in at.files
        }
    found = checkpoint_of(files.values())
    _parsed[table] = (at.by_identity, found)
    _files[table] = files
    _done.pop(table, None)
    for path, file in files.items():
        done = done_rows(path, file.rows, found, are_done=file.is_done)
        if done is not None:
            _done[table] = done
    return found


def _rows_in(table: KeptTable, file: LiveFile) -> pa.Table:
    with table.store.open(file.path, file.size_bytes) as handle:
        return pq.ParquetFile(handle).read()
