"""One batch: records of the shards land in the change log, and the checkpoint advances.

Checkpoint and shard listing make a plan, the planned shards are read, and the records are
committed. A batch never waits for a merge.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.checkpoints import CheckpointSnapshot, CheckpointTable
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.drain.checkpoint_update import is_worth_saving, updated_checkpoint
from datazone_dagster.drain.drain_report import drain_report
from datazone_dagster.drain.gap_acceptance import up_to_date
from datazone_dagster.drain.maintain_source import maintain_once
from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import ShardRead, plan_drain, pruned
from datazone_dagster.drain.polling import due, record_activity
from datazone_dagster.drain.process_state import load_state, memory_pressure, save_state
from datazone_dagster.drain.reader import IteratorCache, ReadBudget, Sink, read_shards
from datazone_dagster.drain.settings import DrainSettings
from datazone_dagster.drain.stream_choice import stream_to_read
from datazone_dagster.errors import (
    AccessDeniedError,
    ConcurrentWriterError,
    CredentialsError,
    StorageError,
    ThrottledError,
)
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, with_gap
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient
from datazone_dagster.model.record import ChangeRecords, MalformedRecord
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.size_policy import BatchMeasured
from datazone_dagster.process import crash_points
from datazone_dagster.process.shutdown import shutdown_requested

MAINTENANCE_SHARE = 0.25
"""Share of a drain's time for maintenance; after it, only one piece is done: landing goes first."""


@dataclass(frozen=True, slots=True)
class Tables:
    """Checkpoint and change log of a source, at the versions that a batch is based on.

    A successful batch leaves both at its own commits, and the next batch of the tick continues
    from there. If another drain has committed meanwhile, the next batch's commit fails.
    """

    saved: CheckpointSnapshot
    log: ChangeLogSnapshot

    @classmethod
    def opened(cls, layout: Layout, source: str) -> Tables:
        """Open both tables at their newest versions.

        Raises:
            StorageError: A table can't be read, or the two contradict each other.
        """
        # The order matters: another drain may land and save a batch between the two.
        saved = CheckpointTable(layout, source).open_or_create()
        log = ChangeLog(layout, source).open_or_create()
        if saved.checkpoint.batch > log.head:
            raise _behind_its_checkpoint(source, saved.checkpoint.batch, log.head, layout)
        return cls(saved, log)


@dataclass(frozen=True, slots=True)
class _Landed:
    """Result of the commits of one batch.

    Args:
        reached: Checkpoint after the batch.
        batch: Number of the batch; None if there was nothing to land.
        lost_race: Whether another drain committed first.
    """

    reached: Checkpoint
    batch: int | None
    lost_race: bool = False


class BatchDrain:
    """One batch: plan, read and write, commit."""

    def __init__(
        self,
        source: DynamoDBSource,
        client: StreamClient,
        layout: Layout,
        settings: DrainSettings,
        clock: Clock,
        logger: logging.Logger,
        deadline_seconds: float,
    ) -> None:
        self._source = source
        self._client = client
        self._layout = layout
        self._settings = settings
        self._now = clock()
        self._logger = logger
        self._deadline_seconds = deadline_seconds
        self.progressed = False
        """Whether the next batch may find records that this one could not read yet."""
        self.throttled = False
        self.tables: Tables | None = None
        """Tables for the next batch of the tick; None: the next batch opens them again."""

    def run(self, tables: Tables | None = None, *, ask_again_seconds: float = 0.0) -> DrainReport:
        """See `drain_once`. Shards read to their latest position rest for `ask_again_seconds`."""
        started_seconds = time.monotonic()
        source, settings, now = self._source, self._settings, self._now
        masks = Masks.of(source)
        tables = tables or Tables.opened(self._layout, source.name)
        checkpoint = up_to_date(tables.saved.checkpoint, tables.log, now)

        stream = stream_to_read(self._client, checkpoint)
        plan = plan_drain(stream, checkpoint, start=source.start, now=now)
        state = load_state(self._client, settings)
        reading_seconds = time.monotonic()
        poll = due(
            plan.reads, state.activities, reading_seconds, at_least_seconds=ask_again_seconds
        )
        budget_bytes = settings.budget_bytes or state.size.bytes
        with tables.log.begin(plan.checkpoint.epoch) as writer:
            outcomes = self._read(poll.reads, state.iterators, budget_bytes, _sink(writer, masks))
            crash_points.reach(crash_points.AFTER_READ)
            writer.finish()
            written_seconds = time.monotonic()
            landed = self._commit(tables, writer, plan.checkpoint, stream, outcomes)
        finished_seconds = time.monotonic()

        self.throttled = any(isinstance(one.error, ThrottledError) for one in outcomes)
        self.progressed = landed.batch is not None or any(one.ended for one in outcomes)
        if not landed.lost_race:
            body_bytes = sum(outcome.body_bytes for outcome in outcomes)
            record_activity(state.activities, outcomes, reading_seconds)
            state.size = state.size.after(
                BatchMeasured(
                    bytes=body_bytes,
                    work_seconds=written_seconds - reading_seconds,
                    commit_seconds=(reading_seconds - started_seconds)
                    + (finished_seconds - written_seconds),
                    full=body_bytes >= budget_bytes,
                    memory_pressure=memory_pressure(state, settings),
                    throttled=self.throttled,
                )
            )
            save_state(self._client, state)
            maintenance_until = started_seconds + settings.budget_seconds * MAINTENANCE_SHARE
            if not maintain_once(tables.log, tables.saved, state, maintenance_until, self._logger):
                self.tables = tables
        _raise_if_locked_out(outcomes)
        return drain_report(
            source.name,
            stream,
            plan,
            poll,
            outcomes,
            landed.reached,
            batch=landed.batch,
            head=tables.log.head,
            log_version=tables.log.version if landed.batch is not None else None,
            lost_race=landed.lost_race,
            duration_seconds=time.monotonic() - started_seconds,
        )

    def _read(
        self, reads: Sequence[ShardRead], iterators: IteratorCache, budget_bytes: int, sink: Sink
    ) -> list[ShardOutcome]:
        """Read the shards that are due within the budget; records go to the sink."""
        budget = ReadBudget(
            deadline_seconds=self._deadline_seconds,
            bytes=budget_bytes,
            max_workers=self._settings.max_workers,
            monotonic=time.monotonic,
            shutdown_requested=shutdown_requested,
        )
        return read_shards(self._client, reads, iterators, budget, self._now, self._logger, sink)

    def _commit(
        self,
        tables: Tables,
        writer: BatchWriter,
        planned: Checkpoint,
        stream: StreamDescription,
        outcomes: list[ShardOutcome],
    ) -> _Landed:
        """Commit the batch, then the checkpoint that it reaches; another drain may win the race."""
        saved, log, now = tables.saved, tables.log, self._now
        reached = updated_checkpoint(planned, outcomes, now)
        batch: int | None = None
        try:
            _record_gaps(saved, planned, outcomes, now)
            batch = writer.commit()
            if batch is not None:
                crash_points.reach(crash_points.AFTER_CHANGE_LOG_COMMIT)
            reached = pruned(replace(reached, batch=log.head), stream, now=now)
            if is_worth_saving(saved.checkpoint, reached):
                saved.save(reached)
                crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
            log.record_gaps(reached.gap_notes())
        except ConcurrentWriterError as error:
            self._logger.info("Drain of %s lost the commit race: %s", self._source.name, error)
            return _Landed(reached, batch, lost_race=True)
        return _Landed(reached, batch)


def _record_gaps(
    saved: CheckpointSnapshot, planned: Checkpoint, outcomes: list[ShardOutcome], now: datetime
) -> None:
    """Save gaps before the records after them land: those rows alone would move the position.

    If this process dies in between, the next drain finds the same gap again.
    """
    found = [with_gap(one.row, one.gap, now) for one in outcomes if one.gap is not None]
    if found:
        saved.save(planned.with_shards(*found))
        crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)


def _sink(writer: BatchWriter, masks: Masks | None) -> Sink:
    """Return a sink that masks the records and puts them into the batch."""

    def put(row: ShardCheckpoint, records: ChangeRecords, malformed: list[MalformedRecord]) -> int:
        refused: list[MalformedRecord] = []
        if masks is not None:
            records, refused = masks.records(records)
            malformed = [*map(masks.withheld, malformed), *refused]
        shard = (row.stream_arn, row.shard_id, row.parent_shard_id)
        writer.put(ShardRecords(*shard, records, malformed))
        return len(refused)

    return put


def _behind_its_checkpoint(source: str, batch: int, head: int, layout: Layout) -> StorageError:
    return StorageError(
        f"The checkpoint of source {source!r} is at batch {batch}, but its change log ends "
        f"at {head}.",
        safe="Nothing was read or written.",
        hint="The change log was removed, or restored from an older copy. Restore the newest "
        f"copy, or move {layout.checkpoint(source)} away to read the stream again from "
        "its trim horizon.",
    )


def _raise_if_locked_out(outcomes: list[ShardOutcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome.error, (AccessDeniedError, CredentialsError)):
            raise outcome.error
