"""Checks of a source and its datasets, evaluated in a tick of the drain sensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from dagster import AssetCheckEvaluation, AssetCheckKey, DagsterInstance

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.api.kinesis_source import stream_name_of
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.checks.dataset_checks import dataset_lag
from datazone_dagster.dagster_glue.checks.first_backlogs import JudgeLag, as_it_is
from datazone_dagster.dagster_glue.checks.hidden_evaluation import is_hidden
from datazone_dagster.dagster_glue.checks.rendering import evaluation
from datazone_dagster.dagster_glue.names import (
    COMPLETE_CHECK,
    HEADROOM_CHECK,
    LAG_CHECK,
    SNAPSHOT_CHECK,
    STREAM_CHECK,
)
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.dagster_glue.runs.run_requests import RunDecision
from datazone_dagster.dagster_glue.sensors.cursor import SensorCursor
from datazone_dagster.dagster_glue.sensors.snapshot_requests import SnapshotDecision
from datazone_dagster.errors import DatazoneError, StoreUnavailableError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.observe.completeness import completeness
from datazone_dagster.observe.headroom import headroom_metadata, headroom_status
from datazone_dagster.observe.health import StreamHealth
from datazone_dagster.observe.lag import LagStatus
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.metadata import (
    Plain,
    completeness_metadata,
    health_metadata,
    lag_metadata,
)
from datazone_dagster.observe.snapshot_progress import (
    FAILURES_TOLERATED,
    progress_line,
    snapshot_level,
    snapshot_metadata,
)
from datazone_dagster.observe.unwatched import unwatched
from datazone_dagster.pipeline import resync_after_gap

STREAM = ":stream"  # not a valid dataset id
FAILURES = "failures_in_a_row"
FAILED_RUN = "failed_run_id"
"""Metadata of `lag`: the last failed run of the transform."""

WAITS_UNTIL = "waits_until"
"""Metadata of `lag`: when runs go on that wait for a rebuild or a repair of their dataset."""

REPORT_EVERY = timedelta(seconds=30)
"""Interval at which unchanged checks go to the event log."""

REPORT_IDLE = timedelta(minutes=30)
"""The same while all of them pass and the stream has no traffic, from the second such time on."""

REPORT_RARELY = timedelta(hours=1)
"""Interval for those that say little while they pass."""


class Due(NamedTuple):
    """Whether unchanged checks are to be reported now: all of them, and those of once an hour."""

    now: bool
    hourly: bool

    @classmethod
    def at(cls, now: datetime, cursor: SensorCursor, *, idle: bool = False) -> Due:
        """Return what is due, given when the checks were last reported, and whether all is idle."""
        every = REPORT_IDLE if idle and cursor.idle else REPORT_EVERY
        due = cursor.evaluated_at is None or now - cursor.evaluated_at >= every
        hourly = cursor.hourly_at is None or now - cursor.hourly_at >= REPORT_RARELY
        return cls(due, due and hourly)


@dataclass(frozen=True, slots=True)
class SensorCheck:
    """One check: its name in the cursor, and its result. `lag` is None if it is not known.

    A `quiet` check that passes is reported only if it failed before, or if Dagster shows it no
    more, since runs report it too. An `hourly` one that passes is reported once an hour.
    """

    name: str
    key: AssetCheckKey
    level: Level
    reason: str
    plain: Mapping[str, Plain] = field(default_factory=dict)
    lag: LagStatus | None = None
    quiet: bool = False
    hourly: bool = False

    def event(self) -> AssetCheckEvaluation:
        """Return the evaluation for the event log."""
        return evaluation(self.key, self.level, self.reason, self.plain)

    def must_be_reported(self, cursor: SensorCursor, due: Due, instance: DagsterInstance) -> bool:
        """Return whether the evaluation goes to the event log; unchanged ones if they are due."""
        if cursor.has_changed(self.name, self.level):
            return True
        if (self.quiet or self.lag is not None) and is_hidden(instance, self.key):
            return True
        if not self.level.passed:
            return due.now
        return due.hourly if self.hourly else due.now and not self.quiet


class StreamReads(NamedTuple):
    """Time of the last drain that succeeded, and event time of the newest change landed so far."""

    polled_at: datetime | None
    newest_at: datetime | None

    @classmethod
    def after(cls, report: DrainReport | None, cursor: SensorCursor, now: datetime) -> StreamReads:
        """Return the times after a drain; without a report, it failed."""
        if report is None:
            return cls(cursor.polled_at, cursor.newest_at)
        known = [one for one in (report.event_time_max, cursor.newest_at) if one is not None]
        return cls(now, max(known, default=None))


def stream_checks(
    source: DynamoDBSource,
    keys: AssetKeys,
    health: StreamHealth,
    caught_up_at: datetime | None,
    reads: StreamReads,
    now: datetime,
) -> list[SensorCheck]:
    """Return the `stream_health` and the `headroom` check of a source."""
    headroom = headroom_status(health)
    return [
        SensorCheck(
            STREAM,
            keys.source_check(source, STREAM_CHECK),
            health.level,
            health.reason,
            health_metadata(
                health,
                caught_up_at,
                polled_at=reads.polled_at,
                newest_at=reads.newest_at,
                now=now,
            ),
        ),
        SensorCheck(
            ":headroom",
            keys.source_check(source, HEADROOM_CHECK),
            headroom.level,
            headroom.reason,
            headroom_metadata(headroom),
            hourly=True,
        ),
    ]


def with_unwatched(
    check: SensorCheck, source: DynamoDBSource, polled_at: datetime | None, now: datetime
) -> SensorCheck:
    """Return a `stream_health` check that also tells when nobody looked at a source of Kinesis."""
    text = "" if stream_name_of(source) is None else unwatched(polled_at, now)
    return replace(check, reason=f"{check.reason} {text}") if text else check


def snapshot_check(
    source: DynamoDBSource,
    keys: AssetKeys,
    report: SnapshotReport | None,
    decision: SnapshotDecision,
) -> SensorCheck:
    """Return the `snapshot` check of a source."""
    level = snapshot_level(report, decision.failures, asks=decision.asks)
    reason = "No snapshot was asked for." if report is None else progress_line(report)
    if decision.last_error and not level.passed:
        reason += f" The last error: {decision.last_error}"
    return SensorCheck(
        ":snapshot",
        keys.source_check(source, SNAPSHOT_CHECK),
        level,
        reason,
        {} if report is None else snapshot_metadata(report),
        hourly=True,
    )


def complete_checks(
    source: DynamoDBSource,
    keys: AssetKeys,
    report: DrainReport,
    lags: Mapping[str, SensorCheck],
) -> list[SensorCheck]:
    """Return the `complete` check of each dataset of a source.

    Args:
        source: The source.
        keys: Keys of the assets.
        report: Report of the drain.
        lags: The `lag` check of each dataset, by dataset id.
    """
    checks = []
    for dataset_id, check in lags.items():
        position = 0 if check.lag is None else check.lag.position
        complete = completeness(source.name, report.gaps, report.snapshot, position)
        checks.append(
            SensorCheck(
                f"{dataset_id}:complete",
                keys.dataset_check(dataset_id, COMPLETE_CHECK),
                complete.level,
                complete.reason,
                completeness_metadata(complete),
                quiet=True,
            )
        )
    return checks


def lag_checks(
    transforms: Sequence[Transform],
    keys: AssetKeys,
    layout: Layout,
    report: DrainReport | None,
    *,
    now: datetime,
    caught_up_at: datetime,
    never_read: bool = False,
    look: bool = False,
    judge: JudgeLag = as_it_is,
) -> dict[str, SensorCheck]:
    """Return the `lag` check of each dataset, by id; a table that can't be read fails it.

    `judge` gives the lags their levels.
    What this process knows of the tables is enough, after the drain that `report` is from; with
    `look`, they are looked at.
    Once the store does not answer, the other datasets have the same result without asking it.
    """
    checks = {}
    down: StoreUnavailableError | None = None
    for transform in transforms:
        for dataset in transform.outputs.values():
            key = keys.dataset_check(dataset.id, LAG_CHECK)
            if down is not None:
                checks[dataset.id] = SensorCheck(dataset.id, key, Level.ERROR, str(down))
                continue
            try:
                lag = dataset_lag(
                    transform,
                    dataset,
                    layout,
                    now=now,
                    caught_up_at=caught_up_at,
                    never_read=never_read,
                    just_landed=None if look else 0 if report is None else report.batches,
                )
            except DatazoneError as error:
                down = error if isinstance(error, StoreUnavailableError) else None
                checks[dataset.id] = SensorCheck(dataset.id, key, Level.ERROR, str(error))
            else:
                lag = judge(dataset, lag)
                checks[dataset.id] = SensorCheck(
                    dataset.id,
                    key,
                    lag.level,
                    lag.reason,
                    {**lag_metadata(lag), FAILURES: 0},
                    lag,
                )
    return checks


def with_failures(check: SensorCheck, decision: RunDecision) -> SensorCheck:
    """Return a `lag` check that also shows the failed applications of its transform."""
    is_new = check.lag is not None and check.lag.is_first_backlog
    return replace(
        check,
        level=Level.ERROR if is_new else check.level,
        reason=f"{check.reason.rstrip('.')}; {decision.reason}. Failures in a row: "
        f"{decision.failures}, the last one: {decision.last_error}",
        plain={
            **check.plain,
            FAILURES: decision.failures,
            **({FAILED_RUN: decision.failed_run_id} if decision.failed_run_id else {}),
        },
    )


def with_wait(check: SensorCheck, text: str, until: datetime) -> SensorCheck:
    """Return a `lag` check that also tells what its dataset waits for, and until when."""
    plain = {**check.plain, WAITS_UNTIL: until}
    return replace(check, reason=f"{check.reason} {text.rstrip('.')}.", plain=plain)


def with_warning(check: SensorCheck, text: str) -> SensorCheck:
    """Return a check that also tells what somebody has to change: it warns at least."""
    level = Level.WARN if check.level.passed else check.level
    said = f"{check.reason} {text[0].upper()}{text[1:].rstrip('.')}."
    return replace(check, level=level, reason=said.strip())


def after_gap(
    check: SensorCheck,
    source: DynamoDBSource,
    layout: Layout,
    dynamodb: DynamoDBStreamsResource,
    clock: Clock,
) -> SensorCheck:
    """Ask for a resync if the source allows it; return the check with what was decided."""
    client = dynamodb.table_client(
        source.table_name, region=source.region, endpoint_url=source.endpoint_url
    )
    try:
        decided = resync_after_gap(source, layout, client, clock=clock)
    except DatazoneError as error:
        decided = f"no resync starts by itself: {error}"
    if not decided:
        return check
    text = f"{decided[0].upper()}{decided[1:].rstrip('.')}."
    return replace(check, reason=f"{check.reason} {text}")


def with_snapshot(check: SensorCheck, decision: SnapshotDecision) -> SensorCheck:
    """Return a `stream_health` check that also shows a snapshot that does not get on."""
    if not decision.failures and not decision.asks:
        return check
    lasts = decision.failures > FAILURES_TOLERATED or (decision.asks and decision.failures)
    level = Level.ERROR if lasts or check.level is Level.ERROR else Level.WARN
    last = f" The last error: {decision.last_error}" if decision.last_error else ""
    return replace(
        check,
        level=level,
        reason=f"{check.reason} {decision.reason[0].upper()}{decision.reason[1:]}.{last}",
        plain={**check.plain, "snapshot_failures_in_a_row": decision.failures},
    )
