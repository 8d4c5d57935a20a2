"""Runs of the sets of a source with `drain="runs"`: those there are, and those to request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunRequest, RunsFilter

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.names import (
    BATCH_TAG,
    FAILING_TAG,
    FAILURE_TAG,
    LAKEHOUSE_TAG,
    READ_TAG,
    SOURCE_TAG,
    UNKNOWN_TAG,
    VERSION_TAG,
    drain_job_name,
    drain_pool_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.runs.heartbeat import end_silent_runs, last_sign_of_life
from datazone_dagster.dagster_glue.runs.job_runs import ACTIVE, PARTITION_TAG
from datazone_dagster.dagster_glue.runs.pools import free_pools, limit_pools
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from datazone_dagster.dagster_glue.runs.run_requests import end_of
from datazone_dagster.dagster_glue.runs.staying_runs import end_run_of_other_code, tell_to_end
from datazone_dagster.dagster_glue.sensors.sensor_checks import SensorCheck
from datazone_dagster.model.drain_part import StreamPart
from datazone_dagster.model.retries import wait_after
from datazone_dagster.model.set_state import KnownSets
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.observe.lag import in_words
from datazone_dagster.observe.level import Level
from datazone_dagster.observe.set_health import SET_BEHIND
from datazone_dagster.pipeline import DrainSettings
from datazone_dagster.text import shortened

_FAILURES_COUNTED = 6
_ACTIVE_MOST = 200
_SHOWN = 3
_CHARS = 2_000
_DEATHS_FREE = 1
"""Runs in a row whose process died that are replaced at once; further ones after a wait."""


def drain_version(source: DynamoDBSource, settings: DrainSettings) -> str:
    """Return a version that changes with every setting of a drain run."""
    return hashlib.sha256(repr((source, settings)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class DrainDecision:
    """Runs to request, reasons for these and for others, and the errors of runs that failed."""

    requests: list[RunRequest] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def told_in(self, health: SensorCheck) -> SensorCheck:
        """Return the check `stream_health`, which also tells of the runs that failed."""
        if not self.failed:
            return health
        level = health.level if health.level is Level.ERROR else Level.WARN
        errors = " ".join(self.failed[:_SHOWN])
        return replace(health, level=level, reason=shortened(f"{health.reason} {errors}", _CHARS))


@dataclass(frozen=True)
class DrainRuns:
    """Decides on the drain runs of one source.

    Args:
        source: Source with `drain="runs"`.
        settings: Bounds of its drains.
        options: Tags of the runs.
        instance: Dagster instance, for the latest runs.
        place: Lakehouse and code location of the source.
    """

    source: DynamoDBSource
    settings: DrainSettings
    options: RunOptions
    instance: DagsterInstance
    place: RunPlace

    def part(self, now: datetime, reported_batch: int | None) -> StreamPart:
        """Return what the sensor has to know of the runs; runs without a heartbeat are ended.

        A run of former code, of another number of sets, or of a former lakehouse is told to end.
        Of several runs of a set that have begun, all but the newest are: they would take turns to
        lose. Runs of other code locations with lakehouses of their own are left alone.
        """
        job, sets = drain_job_name(self.source), self._sets
        end_silent_runs(self.instance, {job}, now, quick_to_end={job}, only=job)
        read_at: dict[str, datetime | None] = {}
        run_since: dict[str, datetime] = {}
        begun, unknown, failing = set[str](), set[str](), dict[str, str]()
        version = drain_version(self.source, self.settings)
        active = RunsFilter(job_name=job, statuses=ACTIVE)
        for record in self.instance.get_run_records(active, limit=_ACTIVE_MOST):
            tags = record.dagster_run.tags
            name = tags.get(PARTITION_TAG, "")
            if self.place.is_of_others(record.dagster_run):
                continue
            if self.place.has_other_lakehouse(record.dagster_run):
                tell_to_end(self.instance, record, "the lakehouse has changed")
                if name in sets:  # it keeps its pool until it has ended, and reads nothing for us
                    read_at.setdefault(name, None)
                continue
            if name not in sets:
                tell_to_end(self.instance, record, "the number of drain workers has changed")
                continue
            if record.dagster_run.status is DagsterRunStatus.STARTED and last_sign_of_life(record):
                if name in begun:
                    tell_to_end(self.instance, record, "a newer run drains the same set")
                begun.add(name)
            end_run_of_other_code(self.instance, record, version)
            known, found = read_at.get(name), _last_read(record, now)
            read_at[name] = max(filter(None, (known, found)), default=None)
            created_at = record.create_timestamp.replace(tzinfo=timezone.utc)
            run_since[name] = min(run_since.get(name, created_at), created_at)
            unknown.update(filter(None, tags.get(UNKNOWN_TAG, "").split(",")))
            failing.update(json.loads(tags.get(FAILING_TAG, "[]")))
        between = self._ended_lately(now) if len(read_at) < len(sets) else set[str]()
        return StreamPart(
            len(sets),
            read_at,
            reported_batch,
            run_since,
            frozenset(unknown),
            tuple(failing.items()),
            frozenset(between - read_at.keys()),
        )

    def _ended_lately(self, now: datetime) -> set[str]:
        """Return the sets with a run that has just ended as planned: after hours, or told to."""
        job = drain_job_name(self.source)
        ended = RunsFilter(
            job_name=job, statuses=[DagsterRunStatus.SUCCESS], updated_after=now - SET_BEHIND
        )
        records = self.instance.get_run_records(ended, limit=_ACTIVE_MOST)
        return {record.dagster_run.tags.get(PARTITION_TAG, "") for record in records}

    def requested(self, known: KnownSets, now: datetime, loaded_at: datetime) -> DrainDecision:
        """Return a run for each set that has shards to read and no run, and why, or why not."""
        waiting = [one.name for one in known.sets if one.shards and not one.has_run]
        if not waiting:
            return DrainDecision()
        pools = [drain_pool_name(self.source, self.options.keys.prefix)]
        free_pools(self.instance, pools)
        limit_pools(self.instance, pools, len(self._sets))
        found = DrainDecision()
        for name in waiting:
            remaining, error = self._wait(name, now, loaded_at)
            if error:
                found.failed.append(f"The last run of set {name} failed: {error}")
            if remaining > timedelta(0):
                found.reasons.append(
                    f"the run of set {name} failed and starts again in {in_words(remaining)}"
                )
                continue
            found.reasons.append(f"set {name} of the shards has no run")
            found.requests.append(self._request(name, known.head_batch))
        return found

    @property
    def _sets(self) -> Sequence[str]:
        return [one.name for one in shard_sets(self.source.drain_workers or 1)]

    def _request(self, name: str, head: int) -> RunRequest:
        return RunRequest(
            job_name=drain_job_name(self.source),
            partition_key=name,
            tags={
                **self.options.run_tags,
                SOURCE_TAG: self.source.name,
                BATCH_TAG: str(head),
                LAKEHOUSE_TAG: self.place.lakehouse,
                VERSION_TAG: drain_version(self.source, self.settings),
            },
        )

    def _wait(self, name: str, now: datetime, loaded_at: datetime) -> tuple[timedelta, str]:
        """Return the time until a set gets its next run, and the error of the last one.

        After runs that failed in a row, there is a wait that doubles. A run whose process died is
        replaced at once, unless the one before it died as well.
        """
        latest = RunsFilter(job_name=drain_job_name(self.source), tags={PARTITION_TAG: name})
        failed = _failed_in_a_row(
            self.instance.get_run_records(latest, limit=_FAILURES_COUNTED), loaded_at
        )
        errors = [one.dagster_run.tags.get(FAILURE_TAG, "") for one in failed]
        times = len([one for one in errors if one]) or len(errors) - _DEATHS_FREE
        if times <= 0:
            return timedelta(0), ""
        error = next(filter(None, errors), "its process died")
        return end_of(failed[0]) + wait_after(times) - now, error


def _last_read(record: RunRecord, now: datetime) -> datetime | None:
    """Return when a run has last read all its shards to the latest position; None: not yet.

    Where the clock of its host is ahead, as its heartbeat shows, that is the time by our clock.
    """
    text, alive_at = record.dagster_run.tags.get(READ_TAG), last_sign_of_life(record)
    if not text:
        return None
    ahead = timedelta(0) if alive_at is None else max(alive_at - now, timedelta(0))
    return datetime.fromisoformat(text) - ahead


def _failed_in_a_row(records: Sequence[RunRecord], loaded_at: datetime) -> list[RunRecord]:
    """Return the latest runs that failed one after another, soon after they began.

    A run that drained for minutes before it died is no sign that the next one will fail.
    """
    found: list[RunRecord] = []
    for record in records:
        ended = end_of(record)
        if record.dagster_run.status is not DagsterRunStatus.FAILURE or ended < loaded_at:
            break
        found.append(record)
        began = record.start_time
        if began is not None and ended.timestamp() - began > _LONG_SECONDS:
            break
    return found


_LONG_SECONDS = 300.0
