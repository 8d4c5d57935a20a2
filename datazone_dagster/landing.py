"""One drain: what the shards hold lands in the change log, and positions move.

Top to bottom it is the left half of the flow: checkpoint and listing make a plan, the plan is
read, what was read is committed. It never waits for a merge.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from weakref import WeakKeyDictionary

from datazone_dagster import crash_points
from datazone_dagster.api import DynamoDBSource
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.decode.masking import Masks
from datazone_dagster.drain.plan import DrainPlan, plan_drain, pruned
from datazone_dagster.drain.reader import (
    IteratorCache,
    ReadBudget,
    ShardOutcome,
    read_shards,
)
from datazone_dagster.drain.settle import is_worth_saving, settled
from datazone_dagster.ending import told_to_end
from datazone_dagster.errors import (
    AccessDeniedError,
    ConcurrentWriterError,
    CredentialsError,
    ShardNotFoundError,
    StorageError,
    StreamDisabledError,
    TableNotFoundError,
)
from datazone_dagster.model.checkpoint import Checkpoint, fold
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient, utc_now
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import StreamDescription

_logger = logging.getLogger(__name__)

UPKEEP_SHARE = 0.25
"""No piece of upkeep begins after this share of a drain's time: landing goes first."""

_iterators: WeakKeyDictionary[StreamClient, IteratorCache] = WeakKeyDictionary()
"""Shard iterators kept from one drain to the next, as long as the client lives."""


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """Bounds of one drain.

    A sensor tick has 60 seconds; the budget leaves room for the call in flight and the commit.
    """

    budget_seconds: float = 20.0
    budget_bytes: int = 64 << 20
    max_workers: int = 16


def drain_once(
    source: DynamoDBSource,
    client: StreamClient,
    layout: Layout,
    *,
    settings: DrainSettings = DrainSettings(),
    clock: Clock = utc_now,
    logger: logging.Logger = _logger,
) -> DrainReport:
    """Land what the shards of a source hold, once, and say where it stands.

    Safe at any time and from several processes at once: the one that commits second gives
    way, and the next drain goes on from what is committed.

    Raises:
        SourceError: The stream can't be read at all.
        MaskError: The source's mask can't be applied; nothing was landed.
        LineageError: The shards contradict what was landed.
        StorageError: The lakehouse can't be read or written.
    """
    started_seconds = time.monotonic()
    now = clock()
    masks = Masks.of(source)
    log = ChangeLog(layout, source.name).open_or_create()
    saved = CheckpointTable(layout, source.name).open_or_create()
    if saved.checkpoint.batch > log.head:
        raise StorageError(
            f"The checkpoint of source {source.name!r} is at batch {saved.checkpoint.batch}, but "
            f"its change log ends at {log.head}.",
            safe="Nothing was read or written.",
            hint="The change log was removed or restored from an older copy. Restore the newest "
            f"one, or move {layout.checkpoint(source.name)} away to read the stream again from "
            "its trim horizon.",
        )
    landed = log.landed_since(saved.checkpoint.batch)
    checkpoint = fold(saved.checkpoint, landed, log.head, now)

    stream = _stream_to_read(client, checkpoint)
    plan = plan_drain(stream, checkpoint, start=source.start, now=now)
    # Only a drain that goes through leaves its iterators to the next one: they stand behind
    # everything that was read, also behind records that move no position.
    iterators = _iterators.pop(client, {})
    outcomes = read_shards(
        client,
        plan.reads,
        iterators,
        ReadBudget(
            deadline_seconds=started_seconds + settings.budget_seconds,
            bytes=settings.budget_bytes,
            max_workers=settings.max_workers,
            monotonic=time.monotonic,
            told_to_end=told_to_end,
        ),
        now,
        logger,
    )
    crash_points.reach(crash_points.AFTER_READ)
    if masks is not None:
        _mask(outcomes, masks)
    reached = settled(plan.checkpoint, outcomes, now)
    shards = [
        ShardRecords(
            outcome.row.stream_arn,
            outcome.row.shard_id,
            outcome.row.parent_shard_id,
            outcome.records,
            outcome.malformed,
        )
        for outcome in outcomes
        if outcome.records or outcome.malformed
    ]
    batch: int | None = None
    gave_way = False
    try:
        if shards:
            batch = log.append(reached.epoch, shards)
            crash_points.reach(crash_points.AFTER_CHANGE_LOG_COMMIT)
        reached = pruned(replace(reached, batch=log.head), stream, now=now)
        if is_worth_saving(saved.checkpoint, reached):
            saved.save(reached)
            crash_points.reach(crash_points.AFTER_CHECKPOINT_COMMIT)
        _iterators[client] = iterators
    except ConcurrentWriterError as error:
        gave_way = True
        logger.info("Drain of %s gives way: %s", source.name, error)
    else:
        _keep_small(log, started_seconds + settings.budget_seconds * UPKEEP_SHARE, logger)
    _raise_if_locked_out(outcomes)
    return _drain_report(
        source.name,
        stream,
        plan,
        outcomes,
        reached,
        batch=batch,
        head=log.head,
        log_version=log.version if batch is not None else None,
        gave_way=gave_way,
        duration_seconds=time.monotonic() - started_seconds,
    )


def _mask(outcomes: list[ShardOutcome], masks: Masks) -> None:
    """From here on nobody sees what is masked: not the change log, and so nothing after it."""
    for outcome in outcomes:
        outcome.records, refused = masks.records(outcome.records)
        outcome.malformed = [*map(masks.withheld, outcome.malformed), *refused]


def _keep_small(log: ChangeLogSnapshot, deadline_seconds: float, logger: logging.Logger) -> None:
    """Upkeep of the change log, if the drain left time for it. It never fails a drain."""
    try:
        while time.monotonic() < deadline_seconds and not told_to_end() and log.keep_small():
            pass
    except ConcurrentWriterError as error:
        logger.info("Upkeep of the change log gives way: %s", error)
    except StorageError as error:
        logger.warning("Upkeep of the change log is put off: %s", error)


def _stream_to_read(client: StreamClient, checkpoint: Checkpoint) -> StreamDescription:
    """The oldest stream that is not drained to its end yet, else the current one."""
    missing: TableNotFoundError | StreamDisabledError | None = None
    rows = sorted(checkpoint.shards.values(), key=lambda row: row.first_listed_at)
    try:
        unseen = _unseen_streams(client.stream_arns(), {row.stream_arn for row in rows})
    except (TableNotFoundError, StreamDisabledError) as error:
        unseen, missing = (), error
    unfinished = dict.fromkeys(row.stream_arn for row in rows if not row.is_done)
    for stream_arn in dict.fromkeys((*unfinished, *unseen)):
        try:
            return client.describe(stream_arn)
        except ShardNotFoundError:
            if stream_arn not in unfinished:
                raise
            # The whole stream is gone: its shards are read by id, found missing, and noted
            # as gaps, after which the current stream's turn comes.
            return StreamDescription(stream_arn, view_type="", enabled=False, shards=())
    assert missing is not None
    raise missing


def _unseen_streams(stream_arns: tuple[str, ...], known: set[str]) -> tuple[str, ...]:
    """The streams after those we know, and always the current one.

    A stream may have been replaced twice between two drains. At the very first drain only
    the current one counts.
    """
    last_known = max((at for at, arn in enumerate(stream_arns) if arn in known), default=-1)
    return (stream_arns[last_known + 1 :] if known else ()) or stream_arns[-1:]


def _raise_if_locked_out(outcomes: list[ShardOutcome]) -> None:
    for outcome in outcomes:
        if isinstance(outcome.error, (AccessDeniedError, CredentialsError)):
            raise outcome.error


def _drain_report(
    source: str,
    stream: StreamDescription,
    plan: DrainPlan,
    outcomes: list[ShardOutcome],
    reached: Checkpoint,
    *,
    batch: int | None,
    head: int,
    log_version: int | None,
    gave_way: bool,
    duration_seconds: float,
) -> DrainReport:
    landed = [outcome.records for outcome in outcomes if outcome.records] if batch else []
    return DrainReport(
        source=source,
        stream_arn=stream.stream_arn,
        batch=batch,
        head_batch=head,
        records=sum(map(len, landed)),
        record_bytes=sum(sum(records.size_bytes) for records in landed),
        malformed=sum(len(outcome.malformed) for outcome in outcomes) if batch else 0,
        get_records_calls=sum(outcome.calls for outcome in outcomes),
        shards_open=plan.shards_open,
        shards_unfinished=sum(not row.is_done for row in reached.of_stream(stream.stream_arn)),
        caught_up=not gave_way and plan.waiting == 0 and all(one.at_tip for one in outcomes),
        gave_way=gave_way,
        event_time_min=_time(min((min(records.created_at) for records in landed), default=None)),
        event_time_max=_time(max((max(records.created_at) for records in landed), default=None)),
        log_version=log_version,
        duration_seconds=duration_seconds,
        shard_errors=tuple(
            (outcome.row.shard_id, str(outcome.error)) for outcome in outcomes if outcome.error
        ),
        gaps=reached.open_gaps(),
    )


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
