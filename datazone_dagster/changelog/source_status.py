"""Status of a source, read from its change log and its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.gap_acceptance import gap_notes
from datazone_dagster.changelog.landed_notes import is_of_drain
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.delta.store_errors import converts_errors
from datazone_dagster.delta.transaction_log import Snapshot
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.log_reach import LogReach, usable_base
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.model.snapshot_report import report_of
from datazone_dagster.model.source_state import SetProgress, SourceStatus


@converts_errors("Looking at a source")
def source_status(
    source_name: str, layout: Layout, now: datetime, sets: int = 0
) -> SourceStatus | None:
    """Return the status of a source from its tables alone; None if it has no change log.

    Args:
        source_name: Name of the source.
        layout: Locations of the tables.
        now: Current time.
        sets: Number of sets of shards that drain runs read; 0: ticks drain.

    Raises:
        StorageError: The lakehouse can't be read.
    """
    change_log = ChangeLog(layout, source_name)
    # The order matters: a drain may land and save a batch between the two.
    saved = CheckpointTable(layout, source_name).open()
    log = change_log.open()
    if log is None:
        return None
    checkpoint = up_to_date(Checkpoint() if saved is None else saved.checkpoint, log, now)
    reading = [row for row in checkpoint.shards.values() if not row.is_done]
    return SourceStatus(
        source_name,
        log.head,
        min((row.read_through for row in reading), default=None),
        _drained_at(checkpoint, change_log.table.seen()),
        len(reading),
        None if log.snapshot is None else report_of(source_name, log.snapshot),
        gap_notes(source_name, layout),
        LogReach(
            log.truncated_through,
            log.oldest_event_time_after(log.truncated_through),
            usable_base(log.snapshot, log.truncated_through),
        ),
        _progress(reading, log.batches_of_sets, sets),
    )


def _progress(
    reading: Sequence[ShardCheckpoint], batches: Mapping[str, int], sets: int
) -> tuple[SetProgress, ...]:
    found = []
    for one in shard_sets(sets):
        times = [row.read_through for row in reading if one.has(row.shard_id)]
        last = batches.get(one.name, 0)
        found.append(SetProgress(one.name, len(times), last, min(times, default=None)))
    return tuple(found)


def _drained_at(checkpoint: Checkpoint, log: Snapshot | None) -> datetime | None:
    """Return the later of what the checkpoint and the newest commits of the log tell of drains.

    The time of a save is no such sign: the acceptance of a gap saves the checkpoint, too.
    """
    read = [row.tip_at for row in checkpoint.shards.values() if row.tip_at is not None]
    notes, history = ((), ()) if log is None else (log.notes, log.history)
    landed = {note.version for note in notes if is_of_drain(note.content)}
    committed = [one.at for one in history if one.version in landed and one.at is not None]
    return max((*read, *committed), default=None)
