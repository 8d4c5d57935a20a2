"""Decision on a run of a source's snapshot: one at a time, and none against somebody's will."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from dagster import DagsterRunStatus, RunRecord, RunRequest, RunsFilter

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.names import (
    FAILURE_TAG,
    LAKEHOUSE_TAG,
    SOURCE_TAG,
    WAIT_TAG,
    resync_job_name,
    snapshot_job_name,
    snapshot_pool_name,
)
from datazone_dagster.dagster_glue.runs.job_runs import ACTIVE
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.pools import free_pools, limit_pools
from datazone_dagster.dagster_glue.runs.run_requests import end_of
from datazone_dagster.errors import SnapshotError
from datazone_dagster.model.retries import FIRST_WAIT
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.observe.lag import in_words

LONGEST_WAIT = timedelta(minutes=15)

_RUNS_COUNTED = 8


@dataclass(frozen=True, slots=True)
class SnapshotDecision:
    """Run to request, or None; and the reason for either, empty if there is nothing to do.

    `failures` counts the runs that failed in a row without getting on, `last_error` is the start
    of the latest one's error. `asks` means that the snapshot goes on only if somebody says so.
    """

    request: RunRequest | None
    reason: str
    failures: int = 0
    last_error: str = ""
    asks: bool = False

    @property
    def requests(self) -> list[RunRequest]:
        """The run to request, if there is one."""
        return [] if self.request is None else [self.request]

    @property
    def reasons(self) -> list[str]:
        """The reason, if there is one."""
        return [self.reason] if self.reason else []


def decide_snapshot(
    source: DynamoDBSource,
    snapshot: SnapshotReport | None,
    placed: PlacedRuns,
    keys: AssetKeys,
    *,
    loaded_at: datetime,
    run_tags: Mapping[str, str] = MappingProxyType({}),
) -> SnapshotDecision:
    """Decide whether a source whose snapshot is not complete gets a run.

    It gets none while a run of one of its jobs is queued, starting or started. After runs that did
    not get on, because they failed or had to wait too long, it gets one after a wait that doubles,
    from 15 seconds to 15 minutes. A run that somebody cancelled, or that stopped with a question,
    is followed by none, until somebody starts the job or asks for a resync. Failures before this
    code was loaded do not count. A snapshot that reads exports waits for its command; a run only
    compares the keys at its end.

    Args:
        source: The source.
        snapshot: Its snapshot; None if there never was one.
        placed: The latest runs in Dagster's storage.
        keys: Keys of the assets.
        loaded_at: Time when the code location was loaded.
        run_tags: Tags that users give the runs.
    """
    if snapshot is None or snapshot.is_over or _reads_exports(snapshot):
        return SnapshotDecision(None, "")
    pools = [snapshot_pool_name(source, keys.prefix)]
    instance, now = placed.instance, placed.now
    free_pools(instance, pools)
    records = _records(placed, source)
    if any(record.dagster_run.status in ACTIVE for record in records):
        return SnapshotDecision(None, f"the snapshot of {source.name} is running or queued")
    since = max(loaded_at, snapshot.asked_at or loaded_at)
    held_up = _held_up(records, since)
    error = next((one for one in map(_error_of, held_up) if one), "")
    failures = sum(1 for one in held_up if _error_of(one))
    job = snapshot_job_name(source)
    go_on = f"start the job {job}, or run: datazone-dagster resync {source.name}"
    if records and _was_cancelled(records[0], snapshot.asked_at):
        text = f"the snapshot of {source.name} was cancelled by hand; to go on, {go_on}"
        return SnapshotDecision(None, text, asks=True)
    if error.startswith(SnapshotError.__name__) and _error_of(held_up[0]):
        text = f"the snapshot of {source.name} stopped with a question; to go on, {go_on}"
        return SnapshotDecision(None, text, failures, error, asks=True)
    if held_up:
        wait = min(FIRST_WAIT * 2 ** (len(held_up) - 1), LONGEST_WAIT)
        remaining = end_of(held_up[0]) + wait - now
        if remaining > timedelta(0):
            text = f"the snapshot of {source.name} goes on in {in_words(remaining)}"
            return SnapshotDecision(None, text, failures, error)
    limit_pools(instance, pools)
    tags = {**run_tags, SOURCE_TAG: source.name, LAKEHOUSE_TAG: placed.place.lakehouse}
    request = RunRequest(job_name=job, tags=tags)
    text = f"the snapshot of {source.name} {'goes on' if records else 'begins'}"
    return SnapshotDecision(request, text, failures, error)


def _reads_exports(snapshot: SnapshotReport) -> bool:
    """Return whether a snapshot waits for the command that reads exports, which no run does."""
    return snapshot.reads != "table" and snapshot.phase is not Phase.SCANNED


def _records(placed: PlacedRuns, source: DynamoDBSource) -> list[RunRecord]:
    """Return the latest runs of both jobs, the newest first."""
    found = [
        record
        for name in (snapshot_job_name(source), resync_job_name(source))
        for record in placed.records(RunsFilter(job_name=name), _RUNS_COUNTED)
    ]
    return sorted(found, key=lambda record: record.create_timestamp, reverse=True)


def _held_up(records: list[RunRecord], since: datetime) -> list[RunRecord]:
    """Return the latest runs in a row that did not get on, the newest first.

    A run that failed without a tag got on, or its process died: only the latest one counts.
    """
    found: list[RunRecord] = []
    for record in records:
        if record.dagster_run.status is DagsterRunStatus.CANCELED or end_of(record) < since:
            break
        if _error_of(record) or record.dagster_run.tags.get(WAIT_TAG):
            found.append(record)
        elif record.dagster_run.status is DagsterRunStatus.FAILURE and not found:
            return [record]
        else:
            break
    return found


def _error_of(record: RunRecord) -> str:
    return record.dagster_run.tags.get(FAILURE_TAG, "")


def _was_cancelled(record: RunRecord, asked_at: datetime | None) -> bool:
    cancelled = record.dagster_run.status is DagsterRunStatus.CANCELED
    return cancelled and (asked_at is None or end_of(record) > asked_at)
