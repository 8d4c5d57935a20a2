"""One batch of a drain that shares its source with others, fenced by the change log.

A drain run reads the shards of its set. The sensor does what concerns the whole stream: it lists,
saves new shards, finds gaps and streams that replace others, and reads only those shards that the
listing does not show any more, since only it can tell whether they are gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from datazone_dagster.changelog.current_checkpoint import up_to_date
from datazone_dagster.changelog.log import ChangeLogSnapshot
from datazone_dagster.changelog.ranges import newest_time_after
from datazone_dagster.drain.batch import BatchDrain, Planned
from datazone_dagster.drain.commit_batch import BatchCommit
from datazone_dagster.drain.commit_set import RunCommit, SetCommit
from datazone_dagster.drain.drain_call import DrainCall
from datazone_dagster.drain.plan import DrainPlan, ShardRead, oldest_unread, parent_is_done
from datazone_dagster.drain.polling import POLLING, Intervals
from datazone_dagster.drain.process_state import ProcessState, load_state, save_state
from datazone_dagster.drain.set_plan import plan_set, stream_of_checkpoint
from datazone_dagster.drain.set_states import ShardsBySet
from datazone_dagster.drain.source_check import check_unlisted, owner_to_record
from datazone_dagster.drain.source_tables import Tables
from datazone_dagster.drain.stream_choice import known_table, list_streams, stream_to_read
from datazone_dagster.errors import (
    ConcurrentWriterError,
    ServiceUnavailableError,
    SourceError,
    StorageError,
    ThrottledError,
)
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.drain_part import SetPart, StreamPart
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import StreamDescription, service_arn
from datazone_dagster.model.size_policy import BatchMeasured
from datazone_dagster.model.source_identity import SourceIdentity

UNLISTED = "unlisted"
"""Name of the set of shards that the listing does not show any more: the sensor reads them."""

READ_WITHIN_SECONDS = 60.0
"""Age of the sign of a drain run up to which its set counts as read to the latest position."""


class _SharedDrain(BatchDrain):
    """One batch of one of several drains."""

    def _committer(self) -> BatchCommit:
        return SetCommit(self._source.name, self._salt, self._now, self._here, self._logger)


class SetDrain(_SharedDrain):
    """One batch of the shards of a set. It lists nothing, and maintains nothing."""

    def __init__(self, call: DrainCall, part: SetPart) -> None:
        super().__init__(call)
        self._part = part
        self.set_name = part.shards.name

    def run(
        self,
        tables: Tables | None = None,
        *,
        intervals: Intervals = POLLING,
        listed_recently: bool = False,  # noqa: ARG002  # it lists nothing
    ) -> DrainReport:
        """See `BatchDrain.run`."""
        tables, masks = self._opened(tables)
        checkpoint = up_to_date(tables.saved.checkpoint, tables.log, self._now)
        unchecked = self._part.is_first and not self._is_compared(tables, checkpoint)
        stream = stream_of_checkpoint(checkpoint)
        plan = plan_set(checkpoint, self._part.shards, self._take_time())
        planned = Planned(checkpoint, stream, plan, None, None)
        report = self._read_and_land(tables, masks, planned, intervals)
        return replace(report, table_unchecked=unchecked)

    def _is_compared(self, tables: Tables, checkpoint: Checkpoint) -> bool:
        """Compare the table of the client with that of the change log, as far as it can be.

        While the service refuses listings, the run reads all the same: it asks for known shards of
        a known stream only, and never decides that one of them is gone.

        Returns:
            Whether the table is the same for sure.

        Raises:
            SourceMismatchError: It is another one.
            SourceError: The streams can't be listed, for a reason that does not pass by itself.
        """
        name, client = self._source.name, self._client
        try:
            owner_to_record(name, tables.log, list_streams(client), checkpoint)
        except (ThrottledError, ServiceUnavailableError) as error:
            check_unlisted(name, tables.log, known_table(client), checkpoint)
            self._logger.warning(
                "Drain of %s reads the known shards of %s; that its table is the one of the change "
                "log is checked once its streams can be listed: %s",
                name,
                checkpoint.stream_arn,
                error,
            )
            return False
        return True

    def _begin_again(
        self,
        tables: Tables,
        owner: SourceIdentity | None,
        checkpoint: Checkpoint,
        stream: StreamDescription,  # noqa: ARG002  # it has no shards
    ) -> DrainReport:
        def describe(arn: str) -> StreamDescription:
            return replace(self._client.describe(service_arn(arn)), stream_arn=arn)

        listing = list_streams(self._client)
        owner_to_record(self._source.name, tables.log, listing, checkpoint)  # perhaps unchecked yet
        listed = stream_to_read(describe, listing, checkpoint)
        return super()._begin_again(tables, owner, checkpoint, listed)

    def _committer(self) -> BatchCommit:
        return RunCommit(
            self._source.name, self._salt, self._now, self._here, self._logger, self._told_at
        )

    def _end(self, tables: Tables, state: ProcessState, measured: BatchMeasured) -> None:
        state.known.committed(tables.log)
        state.size = state.size.after(measured)
        save_state(self._client, state)


class StreamDrain(_SharedDrain):
    """What concerns the whole stream, where drain runs read its shards."""

    set_name = UNLISTED

    def __init__(self, call: DrainCall, part: StreamPart) -> None:
        super().__init__(call)
        self._part = part
        self.unknown_shards = part.unknown_shards

    def run(
        self,
        tables: Tables | None = None,
        *,
        intervals: Intervals = POLLING,
        listed_recently: bool = False,
    ) -> DrainReport:
        """See `BatchDrain.run`; the report counts what all drains have landed.

        Where the service refuses listings, the runs go on landing, so maintenance goes on as well.
        """
        try:
            report = super().run(tables, intervals=intervals, listed_recently=listed_recently)
        except SourceError:
            if self.opened is not None:
                self._maintain_alone(self.opened)
            raise
        opened = Tables.opened(self._layout, self._source, lambda: None, shared=True)
        return self._of_all_sets(report, opened)

    def _reads(self, plan: DrainPlan) -> Sequence[ShardRead]:
        return [read for read in plan.reads if not (read.closed or read.listed_open)]

    def _maintain_alone(self, tables: Tables) -> None:
        state = load_state(self._client, self._settings, self._logger)
        now = self._take_time()
        try:
            if tables.log.is_checkpoint_due:  # which drops the notes of positions
                known = up_to_date(tables.saved.checkpoint, tables.log, now)
                tables.saved.save_changes(known)
        except (ConcurrentWriterError, StorageError) as error:
            self._logger.warning("Maintenance of the change log is postponed: %s", error)
            return
        self._maintain(tables, state)
        save_state(self._client, state)

    def _of_all_sets(self, report: DrainReport, tables: Tables) -> DrainReport:
        """Return the report with what the drain runs have landed since the last one."""
        log, part = tables.log, self._part
        checkpoint = up_to_date(tables.saved.checkpoint, log, self._now)
        shards = ShardsBySet(checkpoint, part.sets)
        by_set = shards.rows
        unfinished = [row for rows in by_set.values() for row in rows]
        states = shards.states(log.batches_of_sets, part)
        ages = [None if one.read_at is None else self._age(one.read_at) for one in states]
        is_read = [age is not None and age < READ_WITHIN_SECONDS for age in ages]
        at_latest = {
            (row.stream_arn, row.shard_id)
            for number, rows in by_set.items()
            if is_read[number - 1]
            for row in rows
        }
        waiting = any(not parent_is_done(row, checkpoint) for row in unfinished)
        errors = (*report.shard_errors, *part.shard_errors)
        return replace(
            self._with_landed(report, log),
            caught_up=not (report.lost_race or errors or waiting)
            and all(is_read[number - 1] for number in by_set),
            latest_age_seconds=max((ages[number - 1] or 0.0 for number in by_set), default=0.0),
            oldest_unread_at=oldest_unread(checkpoint, at_latest),
            shards_unfinished=len(unfinished),
            shard_errors=errors,
            gaps=checkpoint.open_gaps(),
            sets=states,
        )

    def _with_landed(self, report: DrainReport, log: ChangeLogSnapshot) -> DrainReport:
        """Return the report with the batches since the last one, by whomever."""
        known = self._part.reported_batch
        since = log.head if known is None else min(known, log.head)
        batches = log.head - since
        return replace(
            report,
            batch=log.head if batches else None,
            batches=batches,
            head_batch=log.head,
            log_version=log.version if batches else None,
            records=log.record_count() - log.record_count(since) if batches else 0,
            event_time_max=newest_time_after(log.files, since),
        )

    def _age(self, at: datetime) -> float:
        return max(0.0, (self._here - at).total_seconds())
