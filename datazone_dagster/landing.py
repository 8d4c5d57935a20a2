"""One drain: what the shards hold lands in the change log, and positions move.

Top to bottom it is the left half of the flow: checkpoint and listing make a plan, the plan is
read, what was read is committed. It never waits for a merge.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from weakref import WeakKeyDictionary

from datazone_dagster import crash_points
from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.batch_writer import BatchWriter
from datazone_dagster.changelog.checkpoints import CheckpointSnapshot, CheckpointTable
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.decode.masking import Masks
from datazone_dagster.drain.plan import plan_drain, pruned
from datazone_dagster.drain.polling import SAME_TICK_SECONDS, Activities, due, noted
from datazone_dagster.drain.reader import (
    IteratorCache,
    ReadBudget,
    ShardOutcome,
    Sink,
    read_shards,
)
from datazone_dagster.drain.report import drain_report
from datazone_dagster.drain.settle import is_worth_saving, settled
from datazone_dagster.drain.streams import stream_to_read
from datazone_dagster.ending import told_to_end
from datazone_dagster.errors import (
    AccessDeniedError,
    ConcurrentWriterError,
    CredentialsError,
    DatazoneError,
    DefinitionError,
    StorageError,
    ThrottledError,
)
from datazone_dagster.gaps import up_to_date
from datazone_dagster.memory import give_back, resident_bytes
from datazone_dagster.model.batch_size import PRESSURE_LOW, BatchMeasured, BatchSize, SizeLimits
from datazone_dagster.model.checkpoint import Checkpoint, ShardCheckpoint, noted_gap
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient, utc_now
from datazone_dagster.model.record import ChangeRecords, MalformedRecord
from datazone_dagster.model.report import DrainReport

_logger = logging.getLogger(__name__)

UPKEEP_SHARE = 0.25
"""After this share of a drain's time only one more piece of upkeep is done: landing goes first."""

SMALLEST_BATCH_BYTES = 2 << 20
BATCH_SHARE_OF_MEMORY = 8
"""A batch is no larger than this part of the memory budget: runs hold at least one of them."""

TIDY_EVERY_SECONDS = 3600.0
TIDY_FIRST_SECONDS = 60.0
"""When replaced files are deleted: by each process that drains, and soon after it began."""

KEPT_AT_LEAST = timedelta(days=2)

BATCH_SECONDS = 4.0
"""How long a batch should take where commits are cheap: what it holds is seen only then."""


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """Bounds of one drain.

    A sensor tick has 60 seconds; the budget leaves room for the call in flight and the commit.

    Args:
        budget_seconds: No call to the service is made after this.
        memory_budget: Bytes that the process of a drain may come to. Batches are no larger
            than an eighth of it, and get smaller while the process is near it.
        budget_bytes: Body bytes of one batch; None finds the size by what batches take.
        max_workers: Shards read at a time, and HTTP connections.
        keep_changes: How long the change log keeps changes that every dataset has applied;
            None keeps them for good, so that a dataset can be built anew from them.

    Raises:
        DefinitionError: `keep_changes` is shorter than two days: positions are rebuilt from
            the change log, and the service has records of the last 24 hours.
    """

    budget_seconds: float = 20.0
    memory_budget: int = 512 << 20
    budget_bytes: int | None = None
    max_workers: int = 16
    keep_changes: timedelta | None = None

    def __post_init__(self) -> None:
        """Check what can't be undone."""
        if self.keep_changes is not None and self.keep_changes < KEPT_AT_LEAST:
            raise DefinitionError(
                f"DrainSettings: keep_changes={self.keep_changes} is too short.",
                hint=f"Keep {KEPT_AT_LEAST.days} days or more, or None to keep all changes.",
            )


@dataclass(slots=True)
class _Kept:
    """What a process remembers from one drain of a client to the next. All of it is a hint."""

    size: BatchSize
    base_bytes: int
    tidy_at_seconds: float = field(default_factory=lambda: time.monotonic() + TIDY_FIRST_SECONDS)
    iterators: IteratorCache = field(default_factory=dict)
    activities: Activities = field(default_factory=dict)


_kept: WeakKeyDictionary[StreamClient, _Kept] = WeakKeyDictionary()


def drain_tick(
    source: DynamoDBSource,
    client: StreamClient,
    layout: Layout,
    *,
    settings: DrainSettings = DrainSettings(),
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
) -> DrainReport:
    """Land batch after batch until the source is caught up or the time is spent.

    Each batch is a drain of its own: what is committed stays, whatever becomes of the next.

    Returns:
        One report over all batches.

    Raises:
        DatazoneError: As `drain_once`, if it is the first batch that fails.
    """
    deadline_seconds = time.monotonic() + settings.budget_seconds
    total: DrainReport | None = None
    while True:
        drain = _Drain(source, client, layout, settings, clock, logger, deadline_seconds)
        try:
            report = drain.run(ask_again_seconds=SAME_TICK_SECONDS if total else 0.0)
        except DatazoneError as error:
            if total is None:
                raise
            logger.warning(
                "Drain of %s stops after %d batches: %s", source.name, total.batches, error
            )
            return total
        total = report if total is None else total.then(report)
        stuck = report.gave_way or drain.throttled or not drain.progressed
        if report.caught_up or stuck or told_to_end() or time.monotonic() >= deadline_seconds:
            return total


def drain_once(
    source: DynamoDBSource,
    client: StreamClient,
    layout: Layout,
    *,
    settings: DrainSettings = DrainSettings(),
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
) -> DrainReport:
    """Land one batch of what the shards of a source hold, and say where it stands.

    Safe at any time and from several processes at once: the one that commits second gives
    way, and the next drain goes on from what is committed.

    Raises:
        SourceError: The stream can't be read at all.
        MaskError: The source's mask can't be applied; nothing was landed.
        LineageError: The shards contradict what was landed.
        StorageError: The lakehouse can't be read or written.
    """
    deadline_seconds = time.monotonic() + settings.budget_seconds
    return _Drain(source, client, layout, settings, clock, logger, deadline_seconds).run()


class _Drain:
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

    def run(self, *, ask_again_seconds: float = 0.0) -> DrainReport:
        """See `drain_once`. Shards at their tip are left alone for `ask_again_seconds`."""
        started_seconds = time.monotonic()
        source, settings, now = self._source, self._settings, self._now
        masks = Masks.of(source)
        # In this order: another drain may land and save a batch between the two.
        saved = CheckpointTable(self._layout, source.name).open_or_create()
        log = ChangeLog(self._layout, source.name).open_or_create()
        if saved.checkpoint.batch > log.head:
            raise _behind_its_checkpoint(source, saved.checkpoint.batch, log.head, self._layout)
        checkpoint = up_to_date(saved.checkpoint, log, now)

        stream = stream_to_read(self._client, checkpoint)
        plan = plan_drain(stream, checkpoint, start=source.start, now=now)
        # Only a drain that goes through leaves its iterators to the next one: they stand behind
        # everything that was read, also behind records that move no position.
        kept = _taken(self._client, settings)
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
                    told_to_end=told_to_end,
                ),
                now,
                self._logger,
                _sink(writer, masks),
            )
            crash_points.reach(crash_points.AFTER_READ)
            writer.finish()
            written_seconds = time.monotonic()
            reached = settled(plan.checkpoint, outcomes, now)
            batch: int | None = None
            gave_way = False
            try:
                _note_gaps(saved, plan.checkpoint, outcomes, now)
                batch = writer.commit()
                if batch is not None:
                    crash_points.reach(crash_points.AFTER_CHANGE_LOG_COMMIT)
                reached = pruned(replace(reached, batch=log.head), stream, now=now)
                if is_worth_saving(saved.checkpoint, reached):
                    saved.save(reached)
                    crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
                log.keep_gaps(reached.gap_notes())
            except ConcurrentWriterError as error:
                gave_way = True
                self._logger.info("Drain of %s gives way: %s", source.name, error)
        finished_seconds = time.monotonic()
        self.throttled = any(isinstance(one.error, ThrottledError) for one in outcomes)
        self.progressed = batch is not None or any(one.ended for one in outcomes)
        if not gave_way:
            body_bytes = sum(outcome.body_bytes for outcome in outcomes)
            noted(kept.activities, outcomes, reading_seconds)
            kept.size = kept.size.after(
                BatchMeasured(
                    bytes=body_bytes,
                    work_seconds=written_seconds - reading_seconds,
                    commit_seconds=(reading_seconds - started_seconds)
                    + (finished_seconds - written_seconds),
                    full=body_bytes >= budget_bytes,
                    memory_pressure=_pressure(kept, settings),
                    throttled=self.throttled,
                )
            )
            _kept[self._client] = kept
            upkeep_until = started_seconds + settings.budget_seconds * UPKEEP_SHARE
            _keep_small(log, saved, kept, upkeep_until, self._logger)
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
            gave_way=gave_way,
            duration_seconds=time.monotonic() - started_seconds,
        )


def _note_gaps(
    saved: CheckpointSnapshot, planned: Checkpoint, outcomes: list[ShardOutcome], now: datetime
) -> None:
    """Save gaps before what was read behind them lands: its rows alone would move the position.

    Should this process die in between, the next drain finds the same gap again.
    """
    found = [noted_gap(one.row, one.gap, now) for one in outcomes if one.gap is not None]
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


def _taken(client: StreamClient, settings: DrainSettings) -> _Kept:
    """What the last drain left; the size stays even if this one does not go through."""
    limits = SizeLimits(
        smallest_bytes=SMALLEST_BATCH_BYTES,
        largest_bytes=max(SMALLEST_BATCH_BYTES, settings.memory_budget // BATCH_SHARE_OF_MEMORY),
        target_seconds=BATCH_SECONDS,
    )
    kept = _kept.pop(client, None)
    if kept is None or kept.size.limits != limits:
        kept = _Kept(BatchSize.first(limits), resident_bytes())
    _kept[client] = _Kept(kept.size, kept.base_bytes, kept.tidy_at_seconds)
    return kept


def _pressure(kept: _Kept, settings: DrainSettings) -> float:
    """Which share of the memory left to drains is in use."""
    left = max(settings.memory_budget - kept.base_bytes, settings.memory_budget // 4)

    def in_use() -> float:
        return max(0.0, (resident_bytes() - kept.base_bytes) / left)

    share = in_use()
    if share > PRESSURE_LOW:
        # Freed memory that the C library holds would make batches small for good.
        give_back()
        share = in_use()
    return share


def _behind_its_checkpoint(
    source: DynamoDBSource, batch: int, head: int, layout: Layout
) -> StorageError:
    return StorageError(
        f"The checkpoint of source {source.name!r} is at batch {batch}, but its change log ends "
        f"at {head}.",
        safe="Nothing was read or written.",
        hint="The change log was removed or restored from an older copy. Restore the newest "
        f"one, or move {layout.checkpoint(source.name)} away to read the stream again from "
        "its trim horizon.",
    )


def _keep_small(
    log: ChangeLogSnapshot,
    saved: CheckpointSnapshot,
    kept: _Kept,
    deadline_seconds: float,
    logger: logging.Logger,
) -> None:
    """Upkeep of our tables: one piece always, more if time is left. It never fails a drain."""
    try:
        while not told_to_end() and log.keep_small() and time.monotonic() < deadline_seconds:
            pass
        if time.monotonic() >= kept.tidy_at_seconds:
            kept.tidy_at_seconds = time.monotonic() + TIDY_EVERY_SECONDS
            log.delete_leftovers()
            saved.delete_leftovers()
    except ConcurrentWriterError as error:
        logger.info("Upkeep of the change log gives way: %s", error)
    except StorageError as error:
        logger.warning("Upkeep of the change log is put off: %s", error)


def _raise_if_locked_out(outcomes: list[ShardOutcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome.error, (AccessDeniedError, CredentialsError)):
            raise outcome.error
