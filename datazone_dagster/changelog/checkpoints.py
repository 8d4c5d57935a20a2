"""The checkpoint table: one current row per shard; each commit replaces all rows."""

from __future__ import annotations

from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.changelog.orphan_files import delete_orphan_files
from datazone_dagster.delta import create_table, guarded, open_table, transaction
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Checkpoint, GapNote, ShardCheckpoint, ShardState
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import Gap

KIND = "checkpoint"

RETENTION_HOURS = 1

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

    def open(self) -> CheckpointSnapshot | None:
        """Open the checkpoint as last saved; None if there is none."""
        table = open_table(self.uri, self.storage_options, KIND)
        return None if table is None else CheckpointSnapshot(self, table)

    def open_or_create(self) -> CheckpointSnapshot:
        """Open the checkpoint as last saved; create an empty table if there is none."""
        table = open_table(self.uri, self.storage_options, KIND) or create_table(
            self.uri,
            self.storage_options,
            KIND,
            SCHEMA,
            configuration=_CONFIGURATION,
            description="How far each shard was landed. Written by datazone_dagster only.",
        )
        return CheckpointSnapshot(self, table)


class CheckpointSnapshot:
    """The checkpoint table at one version."""

    def __init__(self, checkpoints: CheckpointTable, table: DeltaTable) -> None:
        self._checkpoints = checkpoints
        self._table = table
        self._saves = table.transaction_version(checkpoints.app_id) or 0
        self.checkpoint = _from_rows(_read_rows(table))

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace all rows with those of `checkpoint`.

        Raises:
            ConcurrentWriterError: Another drain saved since this snapshot.
            StorageError: The store failed.
        """
        # A save moves the handle, perhaps past the save of another drain.
        saves = self._table.transaction_version(self._checkpoints.app_id) or 0
        if saves != self._saves:
            raise ConcurrentWriterError(
                f"Another drain saved the checkpoint at {self._checkpoints.uri} meanwhile.",
                safe="Its checkpoint is valid; every landed batch is in the change log.",
                hint="This drain lost the commit race; the next one continues from the new state.",
            )
        with guarded(self._checkpoints.uri, "Saving the checkpoint"):
            write_deltalake(
                self._table,
                pa.Table.from_pylist(_to_rows(checkpoint), schema=SCHEMA),
                mode="overwrite",
                commit_properties=transaction(self._checkpoints.app_id, saves + 1),
            )
        self._saves = saves + 1
        self.checkpoint = checkpoint

    def delete_orphan_files(self) -> None:
        """Delete files that earlier commits replaced, or that no commit ever named.

        Meant to be called every hour.

        Raises:
            ConcurrentWriterError: Another commit came first; the next call deletes them.
            StorageError: The store failed; the next call deletes the remaining files.
        """
        with guarded(self._checkpoints.uri, "Removing replaced checkpoint files"):
            self._table.vacuum(
                retention_hours=RETENTION_HOURS, enforce_retention_duration=False, dry_run=False
            )
            options = self._checkpoints.storage_options
            delete_orphan_files(self._table, options, [""], timedelta(hours=RETENTION_HOURS))


def _read_rows(table: DeltaTable) -> list[dict[str, Any]]:
    # No PyArrow dataset: its threads read through Python, even while a command is exiting.
    rows: list[dict[str, Any]] = pa.table(table.scan()).to_pylist()
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
