"""Runs of the sets of a source with `drain="runs"`: those there are, and those to request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunRequest, RunsFilter

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.names import (
    ALIVE_TAG,
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
    hidden_tag,
    sensor_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.runs.heartbeat import end_silent_runs, last_sign_of_life
from datazone_dagster.dagster_glue.runs.job_runs import ACTIVE, PARTITION_TAG
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.pools import free_pools, limit_pools, pool_limit
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from datazone_dagster.dagster_glue.runs.run_requests import end_of
from datazone_dagster.dagster_glue.runs.staying_runs import end_run_of_other_code, tell_to_end
from datazone_dagster.dagster_glue.runs.stuck_starts import end_stuck_starts
from datazone_dagster.dagster_glue.runs.tag_limits import exceeded_limits
from datazone_dagster.dagster_glue.sensors.drain_rivals import (
    leave_note,
    note_in,
    rivalry,
    rivals_in,
)
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

_SENSOR_TAG = "dagster/sensor_name"
"""Tag that Dagster gives the runs that a sensor requests."""

_STARTS_COUNTED = timedelta(hours=1)
"""Time in which runs ended that never began, for them to count."""

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
    """Runs to request, reasons for these and for others, and the errors of runs that failed.

    `short` tells of a pool or a queue that is too small for all runs.
    """

    requests: list[RunRequest] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)

    def told_in(self, health: SensorCheck) -> SensorCheck:
        """Return the check `stream_health`, which also tells of runs that failed or can't start."""
        told = [*self.short, *self.failed[:_SHOWN]]
        if not told:
            return health
        level = health.level if health.level is Level.ERROR else Level.WARN
        errors = " ".join(told)
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
        """Return what the sensor has to know of the runs: see `look`."""
        return self.look(now, reported_batch)[0]

    def look(self, now: datetime, reported_batch: int | None) -> tuple[StreamPart, str]:
        """Return what the sensor has to know of the runs, and who else drains the source.

        Runs without a heartbeat, and those that do not begin, are ended. A run of former code, of
        another number of sets, or of a former lakehouse is told to end. Of several runs of a set
        that have begun, all but the newest are: they would take turns to lose. Runs of other code
        locations with lakehouses of their own are left alone, and so are those of one in this
        lakehouse which has other settings, and was there first.
        """
        job, version = drain_job_name(self.source), drain_version(self.source, self.settings)
        end_silent_runs(self.instance, {job}, now, quick_to_end={job}, only=job)
        end_stuck_starts(self.instance, {job}, now)
        placed = PlacedRuns(self.instance, self.place, sensor_name(self.source), now)
        active = RunsFilter(job_name=job, statuses=ACTIVE)
        found = self.instance.get_run_records(active, limit=_ACTIVE_MOST)
        records = [one for one in found if not self.place.is_of_others(one.dagster_run)]
        rivals = rivals_in(placed, records, version)
        if rivals is None:
            return self._own_part(records, version, now, reported_batch), note_in(records, now)
        text = rivalry(self.source, placed, rivals)
        others = {one.storage_id for one in rivals.records}
        own = [one for one in records if one.storage_id not in others]
        if not rivals.were_first:
            return self._own_part(own, version, now, reported_batch), text
        for record in own:
            tell_to_end(self.instance, record, f"{rivals.location} drains the same source")
        leave_note(self.instance, rivals, text, now)
        return self._others_part(rivals.records, now, reported_batch), text

    def _others_part(
        self, records: Sequence[RunRecord], now: datetime, reported_batch: int | None
    ) -> StreamPart:
        """Return what is known of the sets while runs of another location drain all of them."""
        reads = [_last_read(one, now) for one in records]
        known = [one for one in reads if one is not None]
        read_at = min(known) if len(known) == len(reads) else None
        since = min(_created_at(one) for one in records)
        unknown, failing = _troubles(records)
        return StreamPart(
            len(self._sets),
            dict.fromkeys(self._sets, read_at),
            reported_batch,
            dict.fromkeys(self._sets, since),
            unknown,
            failing,
        )

    def _own_part(
        self,
        records: Sequence[RunRecord],
        version: str,
        now: datetime,
        reported_batch: int | None,
    ) -> StreamPart:
        sets = self._sets
        read_at: dict[str, datetime | None] = {}
        run_since: dict[str, datetime] = {}
        begun, counted = set[str](), list[RunRecord]()
        for record in records:
            name = record.dagster_run.tags.get(PARTITION_TAG, "")
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
            created_at = _created_at(record)
            run_since[name] = min(run_since.get(name, created_at), created_at)
            counted.append(record)
        between = self._ended_lately(now) if len(read_at) < len(sets) else set[str]()
        unknown, failing = _troubles(counted)
        return StreamPart(
            len(sets),
            read_at,
            reported_batch,
            self._since_first_start(counted, run_since, now),
            unknown,
            failing,
            frozenset(between - read_at.keys()),
        )

    def _since_first_start(
        self, active: Sequence[RunRecord], run_since: Mapping[str, datetime], now: datetime
    ) -> dict[str, datetime]:
        """Return since when each set asks for a run, where its last ones ended before they began.

        Dagster ends each of those after its `start_timeout_seconds`, and the next one is new.
        """
        since = dict(run_since)
        unbegun = {one.dagster_run.tags.get(PARTITION_TAG, "") for one in active}
        unbegun -= {one.dagster_run.tags.get(PARTITION_TAG, "") for one in active if _began(one)}
        if not unbegun:
            return since
        failed = RunsFilter(
            job_name=drain_job_name(self.source),
            statuses=[DagsterRunStatus.FAILURE],
            updated_after=now - _STARTS_COUNTED,
        )
        for record in self.instance.get_run_records(failed, limit=_ACTIVE_MOST):
            name = record.dagster_run.tags.get(PARTITION_TAG, "")
            if name not in unbegun or self.place.is_of_others(record.dagster_run):
                continue
            if _began(record):
                unbegun.discard(name)
            else:
                since[name] = min(since[name], _created_at(record))
        return since

    def _ended_lately(self, now: datetime) -> set[str]:
        """Return the sets with a run that has just ended as planned: after hours, or told to."""
        job = drain_job_name(self.source)
        ended = RunsFilter(
            job_name=job, statuses=[DagsterRunStatus.SUCCESS], updated_after=now - SET_BEHIND
        )
        records = self.instance.get_run_records(ended, limit=_ACTIVE_MOST)
        own = [one.dagster_run for one in records if not self.place.is_of_others(one.dagster_run)]
        return {run.tags.get(PARTITION_TAG, "") for run in own}

    def requested(self, known: KnownSets, now: datetime, loaded_at: datetime) -> DrainDecision:
        """Return a run for each set that has shards to read and no run, and why, or why not."""
        pools = [drain_pool_name(self.source, self.options.keys.prefix)]
        short = (self._short_pool(pools[0], known), self._short_queue(), *self._short_tags())
        found = DrainDecision(short=[one for one in short if one])
        waiting = [one.name for one in known.sets if one.shards and not one.has_run]
        if not waiting:
            return found
        free_pools(self.instance, pools)
        limit_pools(self.instance, pools, len(self._sets))
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

    def _short_pool(self, pool: str, known: KnownSets) -> str:
        limit = pool_limit(self.instance, pool)
        needed = sum(1 for one in known.sets if one.shards)
        if limit is None or limit >= needed:
            return ""
        return (
            f"The pool {pool} has a limit of {limit}, and {needed} sets of shards need a run each: "
            f"{needed - limit} of them wait. Raise the limit to {len(self._sets)} (Deployment > "
            f"Concurrency), or lower drain_workers to {limit}."
        )

    def _short_queue(self) -> str:
        queue = self.instance.get_concurrency_config().run_queue_config
        most, workers = queue.max_concurrent_runs if queue else None, len(self._sets)
        if most is None or most < 0 or most > workers:
            return ""
        return (
            f"Dagster starts {most} runs at a time (concurrency.runs.max_concurrent_runs), and the "
            f"{workers} drain runs stay: no run of a transform starts while they do. Raise it "
            f"above {workers} by the number of other runs that should work at a time."
        )

    def _short_tags(self) -> Iterator[str]:
        """Yield what limits of the queue for tags keep from work while the drain runs stay."""
        of_all = {**self.options.run_tags, _SENSOR_TAG: sensor_name(self.source)}
        drains = [
            {**(self._request(name, 0).tags or {}), **of_all, PARTITION_TAG: name}
            for name in self._sets
        ]
        for one in exceeded_limits(self.instance, drains):
            yield (
                f"Dagster starts {one.limit} of the runs with the tag {one.tag} at a time "
                f"(tag_concurrency_limits), and {one.runs} drain runs have it and stay: "
                f"{one.runs - one.limit} of them wait. Raise the limit above {one.runs}, or give "
                "the runs of this source another tag."
            )
        drained = {one.tag for one in exceeded_limits(self.instance, drains)}
        for one in exceeded_limits(self.instance, [*drains, of_all]):
            if one.tag not in drained:
                yield (
                    f"Dagster starts {one.limit} of the runs with the tag {one.tag} at a time "
                    f"(tag_concurrency_limits), and the {one.runs - 1} drain runs stay: no run of "
                    "a transform starts while they do. Raise the limit by the number of other runs "
                    "that should work at a time."
                )

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
        placed = PlacedRuns(self.instance, self.place, sensor_name(self.source), now)
        failed = _failed_in_a_row(placed.records(latest, _FAILURES_COUNTED), loaded_at)
        errors = [one.dagster_run.tags.get(FAILURE_TAG, "") for one in failed]
        times = len([one for one in errors if one]) or len(errors) - _DEATHS_FREE
        if times <= 0:
            return timedelta(0), ""
        error = next(filter(None, errors), "its process died")
        return end_of(failed[0]) + wait_after(times) - now, error


def _began(record: RunRecord) -> bool:
    return hidden_tag(record.dagster_run.tags, ALIVE_TAG) is not None


def _created_at(record: RunRecord) -> datetime:
    return record.create_timestamp.replace(tzinfo=timezone.utc)


def _troubles(
    records: Sequence[RunRecord],
) -> tuple[frozenset[str], tuple[tuple[str, str], ...]]:
    """Return the shards that the service does not know, and those that runs could not read."""
    unknown, failing = set[str](), dict[str, str]()
    for record in records:
        tags = record.dagster_run.tags
        unknown.update(filter(None, tags.get(UNKNOWN_TAG, "").split(",")))
        failing.update(json.loads(tags.get(FAILING_TAG, "[]")))
    return frozenset(unknown), tuple(failing.items())


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
