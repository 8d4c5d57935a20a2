"""Decision on run requests: transforms with a backlog and without an active run get one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property

from dagster import (
    DagsterEventType,
    DagsterInstance,
    DagsterRunStatus,
    RunRecord,
    RunRequest,
    RunsFilter,
)

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.names import (
    BATCH_TAG,
    FAILURE_TAG,
    LAKEHOUSE_TAG,
    SOURCE_TAG,
    VERSION_TAG,
    pool_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.runs.heartbeat import last_sign_of_life
from datazone_dagster.dagster_glue.runs.job_runs import PARTITION_TAG, JobRuns
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.pools import free_pools
from datazone_dagster.dagster_glue.runs.queued_runs import Taken, held_pools, taken_pools
from datazone_dagster.dagster_glue.runs.staying_runs import not_begun
from datazone_dagster.errors import StorageError
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.retries import wait_after
from datazone_dagster.observe.lag import in_words
from datazone_dagster.pipeline import dataset_exists, stop_waiting_for, waits_for_rebuild
from datazone_dagster.text import without_secrets

_FAILURES_COUNTED = 6


@dataclass(frozen=True, slots=True)
class RunDecision:
    """Run to request, or None; and the reason for either.

    `failures` counts the applications that failed in a row, `last_error` is the start of the
    latest one's error, `failed_run_id` its run. `conflict` tells of another code location that does
    the same. `waits_until` is when the transform goes on at the latest, if its dataset is repaired.
    """

    request: RunRequest | None
    reason: str
    failures: int = 0
    last_error: str = ""
    failed_run_id: str = ""
    conflict: str = ""
    waits_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """What keeps a transform from a run, empty if nothing does; until when, if that is known."""

    text: str = ""
    until: datetime | None = None


@dataclass(frozen=True)
class RunDecider:
    """Decides whether a transform with a backlog, or each of its buckets, gets a run now.

    It gets none while a run of its job is queued, starting or started: that run goes on with what
    lands. If that run has another version of the function, it is told to end. A transform gets no
    run before its lookups exist, nor while a rebuild makes its runs wait. After applications that
    failed, it gets one only after a wait that doubles, from 15 seconds to 5 minutes. A run that
    ended before it applied anything (its process died) is followed by one after 15 seconds. Runs
    that ended before this code was loaded do not count: the next code may be the cure. Duplicate
    and lost requests are harmless: a run applies from the datasets' own positions.

    Args:
        transform: Transform with a backlog.
        layout: Locations of the tables.
        placed: The latest runs in Dagster's storage.
        options: Tags of the run, and the shortest time between two runs.
        version: Version of the transform and of the settings of its runs.
        head: Latest batch of the change log, for the run's tags.
        loaded_at: Time when the code location was loaded.
    """

    transform: Transform
    layout: Layout
    placed: PlacedRuns
    options: RunOptions
    version: str
    head: int
    loaded_at: datetime

    @property
    def instance(self) -> DagsterInstance:
        """Dagster instance."""
        return self.placed.instance

    @property
    def pool(self) -> str:
        """Pool of the runs."""
        return pool_name(self.transform, self.options.keys.prefix)

    @property
    def now(self) -> datetime:
        """Current time."""
        return self.placed.now

    @cached_property
    def runs(self) -> JobRuns:
        """Runs of the transform's job; the slots of ended ones are free."""
        free_pools(self.instance, [self.pool])
        recent = self.now - self.options.min_run_interval
        return JobRuns(self.placed, self.transform.job_name, self.loaded_at, recent)

    def of(self, bucket: KeyBucket = WHOLE) -> RunDecision:
        """Return the decision for a bucket: only runs of its partition count."""
        of_bucket = {} if bucket.is_whole else {PARTITION_TAG: bucket.name}
        name = self.transform.name
        name = name if bucket.is_whole else f"{name}, bucket {bucket.name},"
        active, past = self.runs.active(bucket), _PastFailures()
        if self.runs.may_have_failed(bucket):
            past = _past_failures(self.placed, self.transform, of_bucket, self.loaded_at)
        if active:
            return self._while_active(past, active, bucket)
        if self._rival_of_any:  # with another number of buckets
            return _decided(past, self._rival_of_any, is_conflict=True)
        if self._waits.text:
            decision = _decided(past, self._waits.text)
            return replace(decision, waits_until=self._waits.until)
        why_not = _text_of_wait(name, past, self.now)
        early = timedelta(0) if why_not else self._too_early(bucket)
        if early > timedelta(0):
            why_not = f"the next run of {name} starts in {in_words(early)}"
        if why_not:
            return _decided(past, why_not)
        taken = self._taken if bucket.is_whole else Taken()
        if taken.text:
            return _decided(past, f"{name} {taken.text}", is_conflict=taken.elsewhere)
        return _decided(past, f"{name} has a backlog", self._request(bucket))

    def _while_active(
        self, past: _PastFailures, active: Sequence[RunRecord], bucket: KeyBucket
    ) -> RunDecision:
        told = [self.placed.end_outdated(one, self.version) for one in active]
        if conflict := self._conflict(active):
            return _decided(past, conflict, is_conflict=True)
        ends = next(filter(None, told), None)
        of = "" if bucket.is_whole else f" of bucket {bucket.name}"
        waits = "" if ends else held_pools(self.placed, active[0].dagster_run, [self.pool])
        late = not_begun(active[0], self.now) or "is running or queued"
        is_active = f"{self.transform.job_name}{of} {late}"
        return _decided(past, ends or waits or is_active)

    @cached_property
    def _rival_of_any(self) -> str:
        return self._conflict(self.runs.all_active)

    def _conflict(self, active: Sequence[RunRecord]) -> str:
        rivals = (self.placed.rival(one.dagster_run, self.version) for one in active)
        rival = next(filter(None, rivals), "")
        return self.placed.conflict(rival, f"apply {self.transform.name}") if rival else ""

    @cached_property
    def _taken(self) -> Taken:
        return taken_pools(self.placed, [self.pool])

    @cached_property
    def _waits(self) -> Wait:
        return why_it_waits(self.transform, self.layout, self.now, self.instance)

    def _too_early(self, bucket: KeyBucket) -> timedelta:
        interval = self.options.min_run_interval
        last = self.runs.last_start(bucket) if interval else None
        return timedelta(0) if last is None else last + interval - self.now

    def _request(self, bucket: KeyBucket) -> RunRequest:
        return RunRequest(
            job_name=self.transform.job_name,
            partition_key=None if bucket.is_whole else bucket.name,
            tags={
                **tags_of_runs(self.transform, self.options),
                SOURCE_TAG: self.transform.source.name,
                BATCH_TAG: str(self.head),
                LAKEHOUSE_TAG: without_secrets(self.layout.uri),
                VERSION_TAG: self.version,
            },
        )


def tags_of_runs(transform: Transform, options: RunOptions) -> dict[str, str]:
    """Return the tags that users give the runs of a transform."""
    return {**options.run_tags, **transform.run_tags}


def too_early(placed: PlacedRuns, job_name: str, interval: timedelta) -> timedelta:
    """Return the time until a run may start, for the shortest time between two runs."""
    if interval == timedelta(0):
        return interval
    last = placed.records(RunsFilter(job_name=job_name), 1)
    started = [one.create_timestamp.replace(tzinfo=timezone.utc) for one in last]
    return max((at + interval - placed.now for at in started), default=timedelta(0))


@dataclass(frozen=True, slots=True)
class _PastFailures:
    failures: int = 0
    last_error: str = ""
    wait_until: datetime | None = None
    run_id: str = ""


def _decided(
    past: _PastFailures,
    reason: str,
    request: RunRequest | None = None,
    *,
    is_conflict: bool = False,
) -> RunDecision:
    conflict = reason if is_conflict else ""
    return RunDecision(
        request, reason, past.failures, past.last_error, past.run_id, conflict=conflict
    )


def _text_of_wait(name: str, past: _PastFailures, now: datetime) -> str:
    """Return how long a transform waits after failures; empty if it does not."""
    remaining = past.wait_until - now if past.wait_until is not None else timedelta(0)
    if remaining <= timedelta(0):
        return ""
    wait = in_words(remaining)
    if not past.failures:
        return f"the last run of {name} ended early; the next starts in {wait}"
    times = "once" if past.failures == 1 else f"{past.failures} times in a row"
    return f"{name} failed {times} and is retried in {wait}"


def why_it_waits(
    transform: Transform, layout: Layout, now: datetime, instance: DagsterInstance
) -> Wait:
    """Return what keeps a transform with a backlog from a run.

    A run that is over keeps it from none: its process has died, or will not be waited for.
    """
    if text := waits_for_lookups(transform, layout):
        return Wait(text)
    ids = [one.id for one in transform.outputs.values()]
    try:
        found = waits_for_rebuild(transform.source.name, ids, layout, now)
        while found is not None and _is_over(instance, found[1].run_id):
            stop_waiting_for(transform.source.name, found[0], layout, found[1])
            found = waits_for_rebuild(transform.source.name, ids, layout, now)
    except StorageError as error:
        return Wait(f"{transform.name} waits for its datasets, which can't be opened: {error.what}")
    if found is None:
        return Wait()
    dataset_id, fence = found
    dies = "once its run has failed" if fence.run_id else "at that time if its process has died"
    return Wait(
        f"{transform.name} waits, until {fence.until:%Y-%m-%d %H:%M:%S} UTC at most, for dataset "
        f"{dataset_id}: {fence.why}. Its runs go on as soon as that is done, or {dies}",
        fence.until,
    )


def _is_over(instance: DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id) if run_id else None
    return run is not None and run.is_finished


def waits_for_lookups(transform: Transform, layout: Layout) -> str:
    """Return why the lookups keep a transform from a run; empty if they do not."""
    try:
        absent = [
            dataset.id
            for dataset in transform.lookups.values()
            if not dataset_exists(layout, dataset.id)
        ]
    except StorageError as error:
        return f"{transform.name} waits for its lookups, which can't be opened: {error.what}"
    return f"{transform.name} waits for the first rows of {', '.join(absent)}" if absent else ""


def _past_failures(
    placed: PlacedRuns,
    transform: Transform,
    of_bucket: Mapping[str, str],
    loaded_at: datetime,
) -> _PastFailures:
    """Return the failures since the last run that applied something, and the wait they cause.

    A run whose application failed has a tag. One without it failed for another reason: a check of
    somebody else after the application, or its process died.
    """
    instance = placed.instance
    wanted = RunsFilter(job_name=transform.job_name, tags=of_bucket)
    records = placed.records(wanted, _FAILURES_COUNTED)
    errors: list[str] = []
    last_end, run_id = None, ""
    for record in records:
        run, ended = record.dagster_run, end_of(record)
        if run.status is not DagsterRunStatus.FAILURE or ended < loaded_at:
            break
        error = run.tags.get(FAILURE_TAG)
        if error is None and has_applied(instance, run.run_id):
            break
        last_end = last_end or ended
        if error is not None:
            errors.append(error)
            run_id = run_id or run.run_id
    if last_end is None:
        return _PastFailures()
    until = (last_end if errors else died_at(records[0])) + wait_after(len(errors))
    return _PastFailures(len(errors), errors[0] if errors else "", until, run_id)


def has_applied(instance: DagsterInstance, run_id: str) -> bool:
    """Return whether a run has materialized anything."""
    return bool(instance.all_logs(run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION))


def died_at(record: RunRecord) -> datetime:
    """Return when a run without an end of its own was last alive, as far as is known.

    A run that was ended for its silence died before that, perhaps as it started: nobody waits for
    the same thing twice.
    """
    alive_at, ended = last_sign_of_life(record), end_of(record)
    if alive_at is None and record.start_time is not None:
        alive_at = datetime.fromtimestamp(record.start_time, timezone.utc)
    return ended if alive_at is None else min(alive_at, ended)


def end_of(record: RunRecord) -> datetime:
    """Return the time at which a run ended, or was last changed."""
    if record.end_time is not None:
        return datetime.fromtimestamp(record.end_time, timezone.utc)
    return record.update_timestamp.replace(tzinfo=timezone.utc)
