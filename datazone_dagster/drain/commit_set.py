"""Commit of a batch of one set of shards, next to other drains of the same source.

The change log decides whose batch counts (`changelog.set_commits`). The checkpoint table is only a
snapshot of that: every process saves what it knows on top of what the others have saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.changelog.checkpoints import CheckpointSnapshot
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.drain.checkpoint_update import is_worth_saving
from datazone_dagster.drain.commit_batch import BatchCommit
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.pruning import pruned
from datazone_dagster.drain.source_tables import Tables
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Checkpoint, Landed, ShardCheckpoint
from datazone_dagster.model.shard import StreamDescription


@dataclass(frozen=True)
class SetCommit(BatchCommit):
    """Commits the batches of one of several drains."""

    def record_gaps(
        self, tables: Tables, planned: Checkpoint, outcomes: Sequence[ShardOutcome]
    ) -> None:
        """See `BatchCommit.record_gaps`: records that others have landed meanwhile are no gap.

        Raises:
            ConcurrentWriterError: They have read on one of the shards: the gap may be none.
            StorageError: The store failed.
        """
        rows = [one.row for one in outcomes if one.gap is not None]
        if rows:
            tables.log.move_on()
            newest = up_to_date(tables.saved.newest(), tables.log, self.now)
            for row in rows:
                if _has_moved(row, newest.get(row.stream_arn, row.shard_id), tables):
                    raise _outdated(self.source, f"others have read shard {row.shard_id} further")
        super().record_gaps(tables, planned, outcomes)

    def check(self, tables: Tables, planned: Checkpoint, moved: Sequence[Landed]) -> None:
        """Check that the newest checkpoint has the same stream and epoch, and the shards unread.

        Raises:
            ConcurrentWriterError: It has not: the next batch is planned anew.
            StorageError: The store failed.
        """
        newest = tables.saved.newest()
        done = [
            one.shard_id
            for one in moved
            if (row := newest.get(one.stream_arn, one.shard_id)) is not None and row.is_done
        ]
        if newest.stream_arn != tables.saved.checkpoint.stream_arn or newest.epoch > planned.epoch:
            raise _outdated(self.source, "another stream or epoch is read now")
        if done:
            raise _outdated(self.source, f"others have read shard {done[0]} to its end")

    def folded(self, tables: Tables, reached: Checkpoint, stream: StreamDescription) -> Checkpoint:
        """Return the checkpoint with the batches of all sets that the change log has now."""
        found = up_to_date(reached, tables.log, self.now)
        return pruned(found, stream, now=self.now) if stream.shards else found

    def is_due(self, tables: Tables, reached: Checkpoint, *, landed: bool, moved: bool) -> bool:
        """Return whether the checkpoint is saved now; a snapshot waits for the shards of this set.

        What this process knows of other sets is behind, and says nothing of how far they have read.
        """
        saved, log = tables.saved, tables.log
        due = self.positions_due(saved, reached, landed=landed, moved=moved)
        return _passes(saved.checkpoint, reached, log.drain_must_pass) or is_worth_saving(
            saved.checkpoint, reached, positions=due or self.drops_notes(log)
        )

    def drops_notes(self, log: ChangeLogSnapshot) -> bool:
        """Return whether this drain is about to write a checkpoint of the change log's table.

        It drops the notes of the commits: positions that are not saved are read from rows then.
        """
        return log.is_checkpoint_due

    def save(self, saved: CheckpointSnapshot, checkpoint: Checkpoint) -> None:
        """Save a checkpoint on top of those of other processes.

        Raises:
            ConcurrentWriterError: The table was made again, or others were faster all the time.
            StorageError: The store failed.
        """
        saved.save_changes(checkpoint)


@dataclass(frozen=True)
class RunCommit(SetCommit):
    """Commits the batches of a drain run, on one of several hosts.

    Args:
        told_at: Start of the drain by the clock of the service; None: no answer has told it, and
            the clock of this host must not claim changes that are still to come.
    """

    told_at: datetime | None = None

    @property
    def read_at(self) -> datetime | None:
        """See `BatchCommit.read_at`; None if the service does not say what time it is."""
        return self.told_at

    def drops_notes(self, log: ChangeLogSnapshot) -> bool:  # noqa: ARG002  # the sensor does it
        """See `SetCommit.drops_notes`: it maintains nothing."""
        return False


def _has_moved(row: ShardCheckpoint, newest: ShardCheckpoint | None, tables: Tables) -> bool:
    """Return whether others have read a shard further than the plan; dropped rows were read."""
    if newest is None:
        return tables.saved.checkpoint.get(row.stream_arn, row.shard_id) is not None
    if newest.is_done or newest.read_through > row.read_through:
        return True
    if newest.sequence_number is None:
        return False
    return row.sequence_number is None or newest.sequence_number > row.sequence_number


def _passes(saved: Checkpoint, reached: Checkpoint, awaited: datetime | None) -> bool:
    """Return whether a shard has passed a time that the saved checkpoint shows it before."""
    if awaited is None:
        return False

    def has_passed(row: ShardCheckpoint | None) -> bool:
        times = () if row is None else (row.tip_at, row.event_time)
        return any(time is not None and time > awaited for time in times)

    return any(
        has_passed(row) and not has_passed(saved.shards.get(key))
        for key, row in reached.shards.items()
    )


def _outdated(source: str, why: str) -> ConcurrentWriterError:
    return ConcurrentWriterError(
        f"A batch of source {source!r} was read from an older checkpoint: {why}.",
        safe="Nothing of this batch was landed.",
        hint="The next batch is read from the newest checkpoint.",
    )
