"""Commit of one batch: records to the change log, then the checkpoint that they reach."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.checkpoints import CheckpointSnapshot
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.mask_salt import record_salt
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.drain.checkpoint_update import (
    is_worth_saving,
    moved_positions,
    positions_due,
    updated_checkpoint,
)
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.pruning import pruned
from datazone_dagster.drain.source_tables import Tables, record_gaps
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.checkpoint import Checkpoint, Landed
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.process import crash_points


@dataclass(frozen=True, slots=True)
class Committed:
    """Result of the commits of one batch.

    Args:
        reached: Checkpoint after the batch.
        batch: Number of the batch; None if there was nothing to land.
        lost_race: Whether another drain committed first.
    """

    reached: Checkpoint
    batch: int | None
    lost_race: bool = False


@dataclass(frozen=True)
class BatchCommit:
    """Commits the batches of the only drain of a source.

    Args:
        source: Name of the source.
        salt: Fingerprint of the salt of the source's masks; None without masks.
        now: Start of the drain by the clock of the service; see `service_now`.
        here: Start of the drain by the clock of this machine, as the times of saves are.
        logger: Logger of lost races.
    """

    source: str
    salt: str | None
    now: datetime
    here: datetime
    logger: logging.Logger

    def commit(
        self,
        tables: Tables,
        owner: SourceIdentity | None,
        writer: BatchWriter,
        planned: Checkpoint,
        stream: StreamDescription,
        outcomes: Sequence[ShardOutcome],
    ) -> Committed:
        """Commit the batch, then the checkpoint that it reaches; another drain may win the race."""
        saved, log = tables.saved, tables.log
        reached = updated_checkpoint(planned, outcomes, self.now, self.read_at)
        batch: int | None = None
        try:
            self.record_gaps(tables, planned, outcomes)
            if owner is not None:
                log.record_owner(owner)
            record_salt(log, self.salt)
            moved = moved_positions(reached, outcomes)
            if writer.has_rows:
                self.check(tables, planned, moved)
            batch = writer.commit(moved)
            if batch is not None:
                crash_points.reach(crash_points.AFTER_CHANGE_LOG_COMMIT)
            reached = self.folded(tables, reached, stream)
            if self.is_due(tables, reached, landed=batch is not None, moved=bool(moved)):
                self.save(saved, reached)
                crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
            log.record_gaps(reached.gap_notes())
        except ConcurrentWriterError as error:
            saved.forget()
            self.logger.info("Drain of %s lost the commit race: %s", self.source, error)
            return Committed(reached, batch, lost_race=True)
        return Committed(reached, batch)

    @property
    def read_at(self) -> datetime | None:
        """Time up to which a shard is read that was read to its latest position; None: unknown."""
        return self.now

    def record_gaps(
        self, tables: Tables, planned: Checkpoint, outcomes: Sequence[ShardOutcome]
    ) -> None:
        """Save the gaps that reading has found, before the records after them land.

        Raises:
            ConcurrentWriterError: Another process saved.
            StorageError: The store failed.
        """
        record_gaps(tables.saved, planned, outcomes, self.now, self.save)

    def check(self, tables: Tables, planned: Checkpoint, moved: Sequence[Landed]) -> None:  # noqa: ARG002  # others need them
        """Check that the batch may land on the checkpoint that it was planned with.

        Raises:
            ConcurrentWriterError: Another process saved.
            StorageError: The store failed.
        """
        tables.saved.require_newest()

    def folded(self, tables: Tables, reached: Checkpoint, stream: StreamDescription) -> Checkpoint:
        """Return the checkpoint after the commit, as far as the change log goes now."""
        if BY_COMMIT in tables.log.properties:  # a property may have been set after others' batches
            found = up_to_date(reached, tables.log, self.now)
        else:
            found = reached.at(batch=tables.log.head)
        return pruned(found, stream, now=self.now)

    def is_due(self, tables: Tables, reached: Checkpoint, *, landed: bool, moved: bool) -> bool:
        """Return whether the checkpoint is saved now."""
        saved, log = tables.saved, tables.log
        due = self.positions_due(saved, reached, landed=landed, moved=moved)
        return is_worth_saving(
            saved.checkpoint,
            reached,
            log.drain_must_pass,
            positions=due or log.is_checkpoint_due,
        )

    def positions_due(
        self, saved: CheckpointSnapshot, reached: Checkpoint, *, landed: bool, moved: bool
    ) -> bool:
        """Return whether positions alone are a reason to save the checkpoint."""
        return positions_due(
            saved.checkpoint,
            reached,
            landed=landed,
            moved=moved,
            saved_at=saved.saved_at,
            now=self.here,
        )

    def save(self, saved: CheckpointSnapshot, checkpoint: Checkpoint) -> None:
        """Save a checkpoint.

        Raises:
            ConcurrentWriterError: Another process saved.
            StorageError: The store failed.
        """
        saved.save(checkpoint)
