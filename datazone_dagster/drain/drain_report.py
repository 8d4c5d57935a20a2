"""Report of one drain. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import DrainPlan, oldest_unread
from datazone_dagster.drain.polling import Poll
from datazone_dagster.drain.shard_nodes import shard_nodes
from datazone_dagster.errors import ShardNotFoundError
from datazone_dagster.model.arrival import Arrival
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import StreamDescription
from datazone_dagster.model.snapshot_report import report_of
from datazone_dagster.model.snapshot_state import SnapshotState


def drain_report(
    source: str,
    stream: StreamDescription,
    plan: DrainPlan,
    poll: Poll,
    outcomes: Sequence[ShardOutcome],
    reached: Checkpoint,
    *,
    batch: int | None,
    head: int,
    log_version: int | None,
    began_at: datetime,
    lost_race: bool,
    duration_seconds: float,
    snapshot: SnapshotState | None,
) -> DrainReport:
    """Build the report of a finished drain.

    Args:
        source: Name of the source.
        stream: Stream that was read.
        plan: Plan of the drain.
        poll: Planned reads that were due.
        outcomes: Outcomes of the reads.
        reached: Checkpoint after the drain.
        batch: Number of the committed batch, if there was one.
        head: Last batch of the change log.
        log_version: Version of the change log after the commit.
        began_at: Start of the drain by the clock of the service.
        lost_race: Whether another drain committed first.
        duration_seconds: Time from start to end.
        snapshot: The last snapshot of the source.
    """
    landed = outcomes if batch is not None else []
    created_from = [one.created_from_seconds for one in landed]
    created_to = [one.created_to_seconds for one in landed]
    # A shard that was not asked was at its latest position a moment ago.
    asked = {(one.row.stream_arn, one.row.shard_id) for one in outcomes}
    planned = {(read.shard.stream_arn, read.shard.shard_id) for read in plan.reads}
    at_latest = (planned - asked) | {
        (one.row.stream_arn, one.row.shard_id) for one in outcomes if one.at_latest
    }
    return DrainReport(
        source=source,
        stream_arn=stream.stream_arn,
        batch=batch,
        batches=0 if batch is None else 1,
        head_batch=head,
        records=sum(outcome.records for outcome in landed),
        record_bytes=sum(outcome.record_bytes for outcome in landed),
        malformed=sum(outcome.malformed for outcome in landed),
        undated=sum(outcome.undated for outcome in landed),
        get_records_calls=sum(outcome.calls for outcome in outcomes),
        shards_open=plan.shards_open,
        shards_unfinished=len(reached.rows_of_stream(stream.stream_arn).unfinished),
        caught_up=not (lost_race or plan.waiting or plan.is_stuck)
        and all(one.at_latest for one in outcomes),
        lost_race=lost_race,
        event_time_min=_time(min((at for at in created_from if at is not None), default=None)),
        event_time_max=_time(max((at for at in created_to if at is not None), default=None)),
        log_version=log_version,
        duration_seconds=duration_seconds,
        shard_errors=tuple(
            (outcome.row.shard_id, str(outcome.error)) for outcome in outcomes if outcome.error
        ),
        shards_unknown=tuple(
            outcome.row.shard_id
            for outcome in outcomes
            if isinstance(outcome.error, ShardNotFoundError)
        ),
        gaps=reached.open_gaps(),
        latest_age_seconds=poll.latest_age_seconds,
        oldest_unread_at=oldest_unread(reached, at_latest),
        began_at=began_at,
        arrival=Arrival(
            repeated=0 if lost_race else sum(outcome.repeated for outcome in outcomes),
            others=sum(outcome.others for outcome in outcomes),
            tied=sum(outcome.tied for outcome in landed),
            is_coarse=stream.is_coarse,
            retention=stream.retention,
        ),
        snapshot=None if snapshot is None else report_of(source, snapshot),
        shards=shard_nodes(
            stream,
            reached,
            ready={read.shard.shard_id for read in plan.reads},
            failing={outcome.row.shard_id for outcome in outcomes if outcome.error},
        ),
    )


def report_of_listing(
    source: str,
    stream: StreamDescription,
    checkpoint: Checkpoint,
    *,
    head: int,
    began_at: datetime,
    duration_seconds: float,
    snapshot: SnapshotState | None,
) -> DrainReport:
    """Build the report of a drain that read nothing: the first listing of the shards goes on.

    Args:
        source: Name of the source.
        stream: Stream with the shards listed so far.
        checkpoint: Checkpoint of everything landed so far.
        head: Last batch of the change log.
        began_at: Start of the drain by the clock of the service.
        duration_seconds: Time from start to end.
        snapshot: The last snapshot of the source.
    """
    shards_open = sum(shard.is_open for shard in stream.shards)
    report = drain_report(
        source,
        stream,
        DrainPlan(checkpoint, (), waiting=0, shards_open=shards_open),
        Poll((), 0, 0.0),
        (),
        checkpoint,
        batch=None,
        head=head,
        log_version=None,
        began_at=began_at,
        lost_race=False,
        duration_seconds=duration_seconds,
        snapshot=snapshot,
    )
    return replace(report, caught_up=False)


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
