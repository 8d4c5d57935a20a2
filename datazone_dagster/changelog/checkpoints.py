"""The checkpoint table: one current row per shard; each commit replaces all rows."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta, timezone
from typing import Any
from weakref import WeakKeyDictionary

import pyarrow as pa
import pyarrow.parquet as pq

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
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, ShardState
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Gap

KIND = "checkpoint"

RETENTION_HOURS = 1
LOG_RETENTION = timedelta(hours=1)

_TIME = pa.timestamp("us", tz="UTC")
_SEQUENCE = pa.string()

SCHEMA = pa.schema(
    [
        pa.field("stream_arn", pa.string(), nullable=False),
        pa.field("shard_id", pa.string(), nullable=False),
        pa.field("parent_shard_id", pa.string()),
        pa.field("state", pa.string(), nullable=False),
        pa.field("sequence_number", _SEQUENCE),
        pa.field("event_time", _TIME),
        pa.field("first_listed_at", _TIME, nullable=False),
        pa.field("tip_at", _TIME),
        pa.field("skip_before", _TIME),
        pa.field("gap_reason", pa.string()),
        pa.field("gap_after_sequence_number", _SEQUENCE),
        pa.field("gap_since", _TIME),
        pa.field("gap_until", _TIME),
        pa.field("gap_detected_at", _TIME),
        pa.field("gap_accepted_by", pa.string()),
        pa.field("gap_accepted_at", _TIME),
        pa.field("gap_accepted_why", pa.string()),
        pa.field("batch", pa.int64(), nullable=False),
        pa.field("epoch", pa.int64(), nullable=False),
        pa.field("current_stream_arn", pa.string(), nullable=False),
    ]
)

_CONFIGURATION = {
    **NO_CLEANING,
    "delta.logRetentionDuration": f"interval {RETENTION_HOURS} hours",
    # Longer than the time between two deletions of replaced files, as for the change log.
    "delta.deletedFileRetentionDuration": f"interval {RETENTION_HOURS + 2} hours",
}


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
        self.checkpoint = _checkpoint_in(table, at)

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
        with guarded(self._checkpoints.uri, "Saving the checkpoint"):
            rows = pa.Table.from_pylist(_to_rows(checkpoint), schema=SCHEMA)
            add = write_data_file(self._table.store, SCHEMA, {}, rows.to_batches())
            adds = [] if add is None else [add]
            self._at = self._table.took(
                commit_files(
                    self._at,
                    FileActions(adds, self._at.files, [one["path"] for one in adds]),
                    operation="WRITE",
                    parameters={"mode": "Overwrite"},
                    metrics={},
                    properties=transaction(app_id, self._at.transaction(app_id) + 1),
                )
            )
        self.checkpoint = checkpoint
        _parsed[self._table] = (self._at.by_identity, checkpoint)

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


def _checkpoint_in(table: KeptTable, at: Snapshot) -> Checkpoint:
    """Return the checkpoint at a version; its file is read once.

    Raises:
        StorageError: The file can't be read.
    """
    known = _parsed.get(table)
    if known is not None and known[0] is at.by_identity:
        return known[1]
    with guarded(table.uri, "Reading the checkpoint"):
        rows = [row for file in at.files for row in _rows_of(table, file)]
    found = _from_rows(rows)
    _parsed[table] = (at.by_identity, found)
    return found


def _rows_of(table: KeptTable, file: LiveFile) -> list[dict[str, Any]]:
    with table.store.open(file.path, file.size_bytes) as handle:
        rows: list[dict[str, Any]] = pq.ParquetFile(handle).read().to_pylist()
    return rows


def _from_rows(rows: list[dict[str, Any]]) -> Checkpoint:
    if not rows:
        return Checkpoint()
    return Checkpoint(
        batch=max(row["batch"] for row in rows),
        epoch=max(row["epoch"] for row in rows),
        stream_arn=rows[0]["current_stream_arn"],
        shards={(row["stream_arn"], row["shard_id"]): _shard(row) for row in rows},
    )


def _shard(row: dict[str, Any]) -> ShardCheckpoint:
    return ShardCheckpoint(
        stream_arn=row["stream_arn"],
        shard_id=row["shard_id"],
        first_listed_at=row["first_listed_at"],
        parent_shard_id=row["parent_shard_id"],
        state=ShardState(row["state"]),
        sequence_number=_number(row["sequence_number"]),
        event_time=row["event_time"],
        tip_at=row["tip_at"],
        skip_before=row["skip_before"],
        gap=None if row["gap_reason"] is None else _gap_note(row),
    )


def _gap_note(row: dict[str, Any]) -> GapNote:
    detected_at: datetime = row["gap_detected_at"]
    return GapNote(
        Gap(
            row["stream_arn"],
            row["shard_id"],
            row["gap_reason"],
            _number(row["gap_after_sequence_number"]),
            row["gap_since"],
            row["gap_until"],
        ),
        detected_at,
        row["gap_accepted_by"],
        row["gap_accepted_at"],
        row["gap_accepted_why"],
    )


def _to_rows(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    return [_row(checkpoint, shard) for shard in checkpoint.shards.values()]


def _row(checkpoint: Checkpoint, shard: ShardCheckpoint) -> dict[str, Any]:
    row: dict[str, Any] = {
        field.name: getattr(shard, field.name) for field in fields(shard) if field.name != "gap"
    }
    row["state"] = shard.state.value
    row["sequence_number"] = _text(shard.sequence_number)
    row["batch"] = checkpoint.batch
    row["epoch"] = checkpoint.epoch
    row["current_stream_arn"] = checkpoint.stream_arn
    note = shard.gap
    if note is not None:
        row |= {
            "gap_reason": note.gap.reason,
            "gap_after_sequence_number": _text(note.gap.after_sequence_number),
            "gap_since": note.gap.since,
            "gap_until": note.gap.until,
            "gap_detected_at": note.detected_at,
            "gap_accepted_by": note.accepted_by,
            "gap_accepted_at": note.accepted_at,
            "gap_accepted_why": note.accepted_why,
        }
    return row


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
