"""One batch: what the shards hold lands in the change log, and positions move.

Top to bottom it is the left half of the flow: checkpoint and listing make a plan, the plan is
read, what was read is committed. It never waits for a merge.
"""

from __future__ import annotations

import logging
import time
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
from datazone_dagster.drain.plan import plan_drain, pruned
from datazone_dagster.drain.polling import due, noted
from datazone_dagster.drain.process_state import leave, memory_pressure, taken
from datazone_dagster.drain.reader import ReadBudget, ShardOutcome, Sink, read_shards
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
from datazone_dagster.model.batch_size import BatchMeasured
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, with_gap
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient
from datazone_dagster.model.record import ChangeRecords, MalformedRecord
from datazone_dagster.model.report import DrainReport
from datazone_dagster.process import crash_points
from datazone_dagster.process.shutdown import shutdown_requested

MAINTENANCE_SHARE = 0.25
"""After this share of a drain's time only one more piece of upkeep is done: landing goes first."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The checkpoint and the change log of a source, at the versions that a batch goes by.

    A batch that went through leaves them at its own commits: the next one of the tick goes on
    with them. Should another drain have committed meanwhile, its own commit fails.
    """

    saved: CheckpointSnapshot
    log: ChangeLogSnapshot

    @classmethod
    def opened(cls, layout: Layout, source: str) -> Tables:
        """As they are now.

        Raises:
            StorageError: They can't be read, or contradict each other.
        """
        # In this order: another drain may land and save a batch between the two.
        saved = CheckpointTable(layout, source).open_or_create()
        log = ChangeLog(layout, source).open_or_create()
        if saved.checkpoint.batch > log.head:
            raise _behind_its_checkpoint(source, saved.checkpoint.batch, log.head, layout)
        return cls(saved, log)


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
        """Whether the next batch may find what this one could not read yet."""
        self.throttled = False
        self.tables: Tables | None = None
        """What the next batch of the tick may go on with; None: it opens them anew."""

    def run(self, tables: Tables | None = None, *, ask_again_seconds: float = 0.0) -> DrainReport:
        """See `drain_once`. Shards at their tip are left alone for `ask_again_seconds`."""
        started_seconds = time.monotonic()
        source, settings, now = self._source, self._settings, self._now
        masks = Masks.of(source)
        tables = tables or Tables.opened(self._layout, source.name)
        saved, log = tables.saved, tables.log
        checkpoint = up_to_date(saved.checkpoint, log, now)

        stream = stream_to_read(self._client, checkpoint)
        plan = plan_drain(stream, checkpoint, start=source.start, now=now)
        kept = taken(self._client, settings)
        reading_seconds = time.monotonic()
        poll = due(plan.reads, kept.activities, reading_seconds, at_least_seconds=ask_again_seconds)
        with log.begin(plan.checkpoint.epoch) as writer:
            budget_bytes = settings.budget_bytes or kept.size.bytes
            outcomes = read_shards(
                self._client,
                poll.reads,
                kept.iterators,
                ReadBudget(
                    deadline_seconds=self._deadline_seconds,
                    bytes=budget_bytes,
                    max_workers=settings.max_workers,
                    monotonic=time.monotonic,
                    shutdown_requested=shutdown_requested,
                ),
                now,
                self._logger,
                _sink(writer, masks),
            )
            crash_points.reach(crash_points.AFTER_READ)
            writer.finish()
            written_seconds = time.monotonic()
            reached = updated_checkpoint(plan.checkpoint, outcomes, now)
            batch: int | None = None
            lost_race = False
            try:
                _note_gaps(saved, plan.checkpoint, outcomes, now)
                batch = writer.commit()
                if batch is not None:
                    crash_points.reach(crash_points.AFTER_CHANGE_LOG_COMMIT)
                reached = pruned(replace(reached, batch=log.head), stream, now=now)
                if is_worth_saving(saved.checkpoint, reached):
                    saved.save(reached)
                    crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
                log.record_gaps(reached.gap_notes())
            except ConcurrentWriterError as error:
                lost_race = True
                self._logger.info("Drain of %s gives way: %s", source.name, error)
        finished_seconds = time.monotonic()
        self.throttled = any(isinstance(one.error, ThrottledError) for one in outcomes)
        self.progressed = batch is not None or any(one.ended for one in outcomes)
        if not lost_race:
            body_bytes = sum(outcome.body_bytes for outcome in outcomes)
            noted(kept.activities, outcomes, reading_seconds)
            kept.size = kept.size.after(
                BatchMeasured(
                    bytes=body_bytes,
                    work_seconds=written_seconds - reading_seconds,
                    commit_seconds=(reading_seconds - started_seconds)
                    + (finished_seconds - written_seconds),
                    full=body_bytes >= budget_bytes,
                    memory_pressure=memory_pressure(kept, settings),
                    throttled=self.throttled,
                )
            )
            leave(self._client, kept)
            maintenance_until = started_seconds + settings.budget_seconds * MAINTENANCE_SHARE
            if not maintain_once(log, saved, kept, maintenance_until, self._logger):
                self.tables = tables
        _raise_if_locked_out(outcomes)
        return drain_report(
            source.name,
            stream,
            plan,
            poll,
            outcomes,
            reached,
            batch=batch,
            head=log.head,
            log_version=log.version if batch is not None else None,
            lost_race=lost_race,
            duration_seconds=time.monotonic() - started_seconds,
        )


def _note_gaps(
    saved: CheckpointSnapshot, planned: Checkpoint, outcomes: list[ShardOutcome], now: datetime
) -> None:
    """Save gaps before what was read behind them lands: its rows alone would move the position.

    Should this process die in between, the next drain finds the same gap again.
    """
    found = [with_gap(one.row, one.gap, now) for one in outcomes if one.gap is not None]
    if found:
        saved.save(planned.with_shards(*found))
        crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)


def _sink(writer: BatchWriter, masks: Masks | None) -> Sink:
    """Puts what is read into the batch; nobody after it sees what is masked."""

    def put(row: ShardCheckpoint, records: ChangeRecords, malformed: list[MalformedRecord]) -> int:
        refused: list[MalformedRecord] = []
        if masks is not None:
            records, refused = masks.records(records)
            malformed = [*map(masks.withheld, malformed), *refused]
        place = (row.stream_arn, row.shard_id, row.parent_shard_id)
        writer.put(ShardRecords(*place, records, malformed))
        return len(refused)

    return put


def _behind_its_checkpoint(source: str, batch: int, head: int, layout: Layout) -> StorageError:
    return StorageError(
        f"The checkpoint of source {source!r} is at batch {batch}, but its change log ends "
        f"at {head}.",
        safe="Nothing was read or written.",
        hint="The change log was removed or restored from an older copy. Restore the newest "
        f"one, or move {layout.checkpoint(source)} away to read the stream again from "
        "its trim horizon.",
    )


def _raise_if_locked_out(outcomes: list[ShardOutcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome.error, (AccessDeniedError, CredentialsError)):
            raise outcome.error
