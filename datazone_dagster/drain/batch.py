"""One batch: records of the shards land in the change log, and the checkpoint advances.

Checkpoint and shard listing make a plan, the planned shards are read, and the records are
committed. A batch never waits for a merge.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.known_events import KnownEvents
from datazone_dagster.changelog.mask_salt import check_salt
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.drain.commit_batch import BatchCommit, Committed
from datazone_dagster.drain.drain_call import DrainCall
from datazone_dagster.drain.drain_report import drain_report, report_of_listing
from datazone_dagster.drain.late_changes import epoch_begins_at
from datazone_dagster.drain.maintain_source import maintain_once
from datazone_dagster.drain.masked_sink import masked_sink
from datazone_dagster.drain.outcome import ShardOutcome, raise_if_locked_out
from datazone_dagster.drain.plan import DrainPlan, ShardRead, oldest_unread, plan_drain
from datazone_dagster.drain.polling import POLLING, Intervals, Poll, due, record_activity
from datazone_dagster.drain.process_state import (
    ProcessState,
    load_state,
    memory_pressure,
    save_state,
)
from datazone_dagster.drain.reader import (
    IteratorCache,
    ReadBudget,
    Sink,
    read_shards,
)
from datazone_dagster.drain.recent_listing import RecentListing
from datazone_dagster.drain.restart_check import stream_of_new_table, was_made_again
from datazone_dagster.drain.restarts import ended_by_restart
from datazone_dagster.drain.service_now import told_now
from datazone_dagster.drain.source_check import owner_to_record
from datazone_dagster.drain.source_tables import Tables
from datazone_dagster.drain.stream_choice import list_streams
from datazone_dagster.errors import ConcurrentWriterError, ThrottledError
from datazone_dagster.items.masking import Masks
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import StreamDescription, next_restart
from datazone_dagster.model.size_policy import BatchMeasured
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.process import crash_points
from datazone_dagster.process.shutdown import shutdown_requested
from datazone_dagster.text import shown

MAINTENANCE_SHARE = 0.25
"""Share of a drain's time for maintenance; after it, only one piece is done: landing goes first."""


class Planned(NamedTuple):
    """Plan of a batch, and what it was made from."""

    checkpoint: Checkpoint
    stream: StreamDescription
    plan: DrainPlan
    owner: SourceIdentity | None
    listed: RecentListing | None


class BatchDrain:
    """One batch: plan, read and write, commit."""

    set_name: str | None = None
    """Set of shards that is read next to others; None: this drain is the only one."""

    unknown_shards: Collection[str] = ()
    """Shards that the service did not know when others read them: the listing is asked for them."""

    def __init__(self, call: DrainCall) -> None:
        self._source = call.source
        self._client = call.client
        self._layout = call.layout
        self._settings = call.settings
        self._here = call.clock()
        self._told_at: datetime | None = None
        self._logger = call.logger
        self._deadline_seconds = call.deadline_seconds
        self._applied = call.applied
        self._started_seconds = time.monotonic()
        self._salt: str | None = None
        self.progressed = False
        """Whether the next batch may find records that this one could not read yet."""
        self.throttled = False
        self.tables: Tables | None = None
        """Tables for the next batch of the tick; None: the next batch opens them again."""
        self.opened: Tables | None = None
        """Tables that this batch has opened."""
        self.landed_before: Mapping[str, int] = {}
        """Last batch of each set of shards when this batch began; empty without drain runs."""

    def run(
        self,
        tables: Tables | None = None,
        *,
        intervals: Intervals = POLLING,
        listed_recently: bool = False,
    ) -> DrainReport:
        """See `drain_once`.

        Args:
            tables: Tables as the last batch of the tick left them.
            intervals: How soon a shard is read again.
            listed_recently: Whether a listing of the last seconds will do.
        """
        source = self._source
        tables, masks = self._opened(tables)
        listed = RecentListing(
            self._client,
            recent=listed_recently,
            here=self._here,
            logger=self._logger,
            unknown_shards=self.unknown_shards,
        )
        now = self._take_time()
        checkpoint = up_to_date(tables.saved.checkpoint, tables.log, now)
        owner = owner_to_record(source.name, tables.log, listed.streams, checkpoint)
        again = stream_of_new_table(self._client, listed.streams, owner, checkpoint)
        if again is not None:
            return self._begin_again(tables, owner, checkpoint, again)
        stream = listed.stream(checkpoint, now)
        if not listed.is_whole:
            return self._goes_on_listing(tables, checkpoint, stream)
        plan = plan_drain(stream, checkpoint, start=source.start, now=now)
        planned = Planned(checkpoint, stream, plan, owner, listed)
        return self._read_and_land(tables, masks, planned, intervals)

    @property
    def _now(self) -> datetime:
        """Start of the drain, by the clock of the service once `_take_time` has asked for it."""
        return self._told_at or self._here

    def _take_time(self) -> datetime:
        """Take the time of the service for this drain, after an answer; see `service_now`."""
        self._told_at = told_now(self._client)
        return self._now

    def _read_and_land(
        self, tables: Tables, masks: Masks | None, planned: Planned, intervals: Intervals
    ) -> DrainReport:
        """Read what is planned and due, and commit it."""
        source, settings, (before, stream, plan, owner, listed) = (
            self._source,
            self._settings,
            planned,
        )
        state = load_state(self._client, settings, self._logger)
        reading_seconds = time.monotonic()
        poll = due(self._reads(plan), state.activities, reading_seconds, intervals)
        budget_bytes = settings.budget_bytes or state.size.bytes
        with self._begun(tables, stream, plan.checkpoint.epoch) as writer:
            sink = masked_sink(writer, masks)
            known = None if stream.is_ordered else state.known.begin(tables.log)
            outcomes = self._read(poll.reads, state.iterators, budget_bytes, sink, known)
            crash_points.reach(crash_points.AFTER_READ)
            writer.finish()
            written_seconds = time.monotonic()
            if was_made_again(source, tables.log, stream, before, outcomes):
                anew = stream if listed is None else listed.anew()
                return self._begin_again(tables, owner, before, anew)
            landed = self._committer().commit(
                tables, owner, writer, plan.checkpoint, stream, outcomes
            )
        finished_seconds = time.monotonic()

        self._warn(plan, masks)
        self._look_back(landed, outcomes)
        if not landed.lost_race:
            if listed is not None:
                listed.learn(outcomes)
            record_activity(state.activities, outcomes, reading_seconds)
            body_bytes = sum(outcome.body_bytes for outcome in outcomes)
            measured = BatchMeasured(
                bytes=body_bytes,
                work_seconds=written_seconds - reading_seconds,
                commit_seconds=(reading_seconds - self._started_seconds)
                + (finished_seconds - written_seconds),
                full=body_bytes >= budget_bytes,
                memory_pressure=memory_pressure(state, settings),
                throttled=self.throttled,
            )
            self._end(tables, state, measured)
        raise_if_locked_out(outcomes)
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
            began_at=self._now,
            lost_race=landed.lost_race,
            duration_seconds=self._took(),
            snapshot=tables.log.snapshot,
        )

    def _opened(self, tables: Tables | None) -> tuple[Tables, Masks | None]:
        """Open the tables, or take those of the last batch past what a scan has landed since.

        Returns:
            The tables and the masks of the source, whose salt is that of the change log.
        """
        masks = Masks.of(self._source)
        if tables is None:
            tables = Tables.opened(
                self._layout, self._source, self._identify, shared=self.set_name is not None
            )
            tables.require_applied(self._layout, self._applied)
            if self.set_name is not None and BY_COMMIT not in tables.log.properties:
                # The log of another project must stay as it is.
                known = up_to_date(tables.saved.checkpoint, tables.log, self._now)
                listing = list_streams(self._client)
                owner_to_record(self._source.name, tables.log, listing, known)
                tables.log.number_by_commit()
        else:
            tables.log.pass_scans()
        self.opened, self.landed_before = tables, tables.log.batches_of_sets
        self._salt = None if masks is None else masks.salt_fingerprint
        check_salt(self._source.name, tables.log, self._salt)
        return tables, masks

    def _reads(self, plan: DrainPlan) -> Sequence[ShardRead]:
        """Return the planned reads that are for this drain."""
        return plan.reads

    def _committer(self) -> BatchCommit:
        """Return what commits the batch."""
        return BatchCommit(self._source.name, self._salt, self._now, self._here, self._logger)

    def _begun(self, tables: Tables, stream: StreamDescription, epoch: int) -> BatchWriter:
        """Begin a batch, in which changes that come late keep the epoch before."""
        writer = tables.log.begin(epoch, self.set_name)
        writer.begin_epoch_at(epoch_begins_at(stream, tables.log.snapshot, epoch))
        return writer

    def _end(self, tables: Tables, state: ProcessState, measured: BatchMeasured) -> None:
        """Pass the state on, and maintain the tables.

        If nothing was due, the next batch of the tick continues on the same tables.
        """
        state.known.committed(tables.log)
        state.size = state.size.after(measured)
        save_state(self._client, state)
        if not self._maintain(tables, state):
            self.tables = tables

    def _maintain(self, tables: Tables, state: ProcessState) -> bool:
        """Maintain the tables for a while; return whether that may have changed them."""
        until_seconds = self._started_seconds + self._settings.budget_seconds * MAINTENANCE_SHARE
        return maintain_once(tables.log, tables.saved, state, until_seconds, self._logger)

    def _begin_again(
        self,
        tables: Tables,
        owner: SourceIdentity | None,
        checkpoint: Checkpoint,
        stream: StreamDescription,
    ) -> DrainReport:
        """Record that the stream was made again under its ARN; the next batch reads it.

        Nothing of this batch lands. The new epoch and the gap are saved before any record of the
        new stream lands: if this process dies before that, the next drain finds the same again.
        """
        name, now = self._source.name, self._now
        stream = replace(stream, stream_arn=next_restart(stream.stream_arn))
        self._logger.warning(
            "The stream of %s was made again under its ARN: it is read from its start, as %s.",
            name,
            stream.stream_arn,
        )
        ended = ended_by_restart(checkpoint, stream.stream_arn, now)
        plan = plan_drain(stream, ended, start="trim_horizon", now=now)
        lost_race = False
        try:
            tables.saved.save(plan.checkpoint)
            crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
            if owner is not None:
                tables.log.record_owner(owner)
            tables.log.record_gaps(plan.checkpoint.gap_notes())
        except ConcurrentWriterError as error:
            lost_race = True
            tables.saved.forget()
            self._logger.info("Drain of %s lost the commit race: %s", name, error)
        self.progressed = True
        report = drain_report(
            name,
            stream,
            plan,
            Poll((), 0, 0.0),
            (),
            plan.checkpoint,
            batch=None,
            head=tables.log.head,
            log_version=None,
            began_at=now,
            lost_race=lost_race,
            duration_seconds=self._took(),
            snapshot=tables.log.snapshot,
        )
        unread_at = oldest_unread(plan.checkpoint, ())
        return replace(report, caught_up=False, oldest_unread_at=unread_at)

    def _goes_on_listing(
        self, tables: Tables, checkpoint: Checkpoint, stream: StreamDescription
    ) -> DrainReport:
        """Report a drain that reads nothing yet: the first listing has to be whole."""
        name, count, log = self._source.name, len(stream.shards), tables.log
        self._logger.info("Drain of %s lists its shards: %d are known so far.", name, count)
        return report_of_listing(
            name,
            stream,
            checkpoint,
            head=log.head,
            began_at=self._now,
            duration_seconds=self._took(),
            snapshot=log.snapshot,
        )

    def _took(self) -> float:
        """Return the time since this drain began, in seconds."""
        return time.monotonic() - self._started_seconds

    def _identify(self) -> SourceIdentity | None:
        """Return the table that the client reads, before there is a change log.

        Raises:
            TableNotFoundError: The table does not exist.
        """
        listing = list_streams(self._client)
        if listing.identity is not None and not listing.identity.exists and listing.missing:
            raise listing.missing
        return listing.identity

    def _read(
        self,
        reads: Sequence[ShardRead],
        iterators: IteratorCache,
        budget_bytes: int,
        sink: Sink,
        known: KnownEvents | None,
    ) -> list[ShardOutcome]:
        """Read the shards that are due within the budget; records go to the sink."""
        budget = ReadBudget(
            deadline_seconds=self._deadline_seconds,
            bytes=budget_bytes,
            max_workers=self._settings.max_workers,
            monotonic=time.monotonic,
            shutdown_requested=shutdown_requested,
        )
        return read_shards(
            self._client, reads, iterators, budget, self._now, self._logger, sink, known
        )

    def _look_back(self, landed: Committed, outcomes: Sequence[ShardOutcome]) -> None:
        self.throttled = any(isinstance(one.error, ThrottledError) for one in outcomes)
        self.progressed = landed.batch is not None or any(one.moved_on for one in outcomes)

    def _warn(self, plan: DrainPlan, masks: Masks | None) -> None:
        if plan.is_stuck:
            self._logger.warning(
                "Drain of %s reads nothing: %s has open shards, and all of them count as read to "
                "their end. If it goes on for minutes, report it, and give the source a new name.",
                self._source.name,
                plan.checkpoint.stream_arn,
            )
        if masks is not None and masks.masked_whole:
            self._logger.warning(
                "Drain of %s: %s had values that are neither map nor list, where the mask names an "
                "attribute inside. These values are null now, as a whole. Mask the attribute "
                "itself, or write maps only.",
                self._source.name,
                ", ".join(shown(name) for name in sorted(masks.masked_whole)),
            )
