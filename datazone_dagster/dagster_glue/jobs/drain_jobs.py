"""Job `drain_shards_<source>`: each run drains the shards of one set, and stays.

Runs are safe at any time, two of one set included: the commits of the change log decide whose
batches count. So a run that is thought to be dead is replaced at once, and one that was only
frozen finds that others have read its shards, lands nothing and ends.
"""

# No postponed annotations here: Dagster reads the real one of `context`.

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from dagster import (
    DagsterInstance,
    DagsterRunStatus,
    GraphDefinition,
    JobDefinition,
    OpExecutionContext,
    StaticPartitionsDefinition,
    in_process_executor,
    op,
)

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.assets.lakehouse_check import check_lakehouse
from datazone_dagster.dagster_glue.jobs.seldom_log import seldom
from datazone_dagster.dagster_glue.names import (
    DYNAMODB_KEY,
    END_TAG,
    FAILING_TAG,
    FAILURE_TAG,
    LAKEHOUSE_KEY,
    READ_TAG,
    UNKNOWN_TAG,
    drain_job_name,
    drain_pool_name,
    sensor_name,
)
from datazone_dagster.dagster_glue.options import LOCAL_TICK_SECONDS
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.dagster_glue.runs import stopped_sensor
from datazone_dagster.dagster_glue.runs.heartbeat import heartbeats
from datazone_dagster.dagster_glue.runs.staying_runs import ASK_EVERY_SECONDS, asked_at_times
from datazone_dagster.dagster_glue.runs.stopped_sensor import was_stopped
from datazone_dagster.dagster_glue.sensors.tick_summary import counted
from datazone_dagster.errors import ConcurrentWriterError, DatazoneError, DefinitionError
from datazone_dagster.model.drain_part import SetPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock, StreamClient
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard_set import ShardSet, shard_set_named, shard_sets
from datazone_dagster.observe.health import TRANSIENT
from datazone_dagster.pipeline import DrainSettings, drain_tick, next_drain_seconds
from datazone_dagster.process.shutdown import ending
from datazone_dagster.text import shortened, shown

LOG_EVERY_SECONDS = 300.0
"""Interval at which a run tells what it has landed: each line is a row in Dagster's storage."""

LONGEST = timedelta(hours=6)
"""Time after which a run ends, and the sensor starts another one with fresh memory."""

WITHOUT_SHARDS_SECONDS = 60.0
"""Time without a shard to read after which a run ends."""

WAITS_SECONDS = (1.0, 5.0, 10.0, 20.0)
"""Waits after failures in a row that usually pass by themselves; after one more, the run fails."""

_LOOK_EVERY_SECONDS = 0.2
_SHARDS_TOLD = 5
_ERROR_CHARS = 200


def drain_job(
    source: DynamoDBSource,
    keys: AssetKeys,
    settings: DrainSettings,
    tick_seconds: int,
    *,
    clock: Clock,
) -> JobDefinition:
    """Return the job whose runs drain the sets of a source with `drain="runs"`.

    Args:
        source: The source.
        keys: Keys of the assets.
        settings: Bounds of a drain.
        tick_seconds: Shortest time between two batches of a set that is read to its end, in an
            object store or where the user gave more than that of a local lakehouse.
        clock: Function that returns the time in UTC.
    """
    change_log = keys.change_log(source)
    name, workers = drain_job_name(source), source.drain_workers or 1

    @op(
        name=f"{name}_op",
        pool=drain_pool_name(source, keys.prefix),
        required_resource_keys={LAKEHOUSE_KEY, DYNAMODB_KEY},
        ins={},
    )
    def drain_set(context: OpExecutionContext) -> None:
        shards = _set_of_run(context, source.name, workers)
        layout: Layout = getattr(context.resources, LAKEHOUSE_KEY).layout
        dynamodb: DynamoDBStreamsResource = getattr(context.resources, DYNAMODB_KEY)
        client = dynamodb.stream_client(
            source.table_name,
            region=source.region,
            endpoint_url=source.endpoint_url,
            max_pool_connections=settings.max_workers,
        )
        pause = float(tick_seconds) if tick_seconds > LOCAL_TICK_SECONDS else 0.0
        worker = SetWorker(context, source, client, layout, shards, settings, pause, clock)
        # Broad on purpose: whatever ended the run, the sensor is told, and the run fails.
        try:
            check_lakehouse(context.instance, context.run.tags, source, layout, change_log)
            with heartbeats(
                context.instance,
                context.run_id,
                clock,
                rest_is_quick=True,
                tags=worker.signs,
            ):
                sensor = sensor_name(source)
                worker.drain(told_to_end(context.instance, context.run_id, clock, sensor))
        except Exception as error:
            what = error.what if isinstance(error, DatazoneError) else str(error)
            reason = shown(f"{type(error).__name__}: {what}")
            context.instance.add_run_tags(context.run_id, {FAILURE_TAG: reason})
            raise

    return GraphDefinition(name, node_defs=[drain_set]).to_job(
        name=name,
        executor_def=in_process_executor,
        partitions_def=StaticPartitionsDefinition([one.name for one in shard_sets(workers)]),
        description=f"Drains a share of the shards of {source.table_name}, one set per partition, "
        "until it is told to end. The sensor starts its runs. Safe at any time.",
    )


def _set_of_run(context: OpExecutionContext, source: str, workers: int) -> ShardSet:
    """Return the set of a run.

    Raises:
        DefinitionError: It has no partition, or that of another number of sets.
    """
    key = context.partition_key if context.has_partition_key else ""
    found = shard_set_named(key)
    if found is None or found.of != workers:
        raise DefinitionError(
            f"Source {source!r} has {workers} sets of shards, but this run is of the partition "
            f"{key!r}.",
            safe="Nothing was read or written.",
            hint="Start a run of one of the present partitions.",
        )
    return found


def told_to_end(
    instance: DagsterInstance,
    run_id: str,
    clock: Clock,
    sensor: str,
    monotonic: Callable[[], float] = time.monotonic,
) -> Callable[[], bool]:
    """Return a function that tells whether a drain run must end.

    It must if it has the tag for that, if Dagster does not count it as started any more (the
    sensor has replaced it), if its sensor was stopped, or after six hours. The instance is asked at
    most every five seconds, for the sensor every thirty.
    """
    began_at = clock()

    def has_no_sensor() -> bool:
        run = instance.get_run_by_id(run_id)
        return run is not None and was_stopped(instance, run, sensor)

    ask_for_sensor = asked_at_times(
        has_no_sensor, run_id, stopped_sensor.ASK_EVERY_SECONDS, monotonic
    )

    def must_end() -> bool:
        run = instance.get_run_by_id(run_id)
        return (
            run is None
            or END_TAG in run.tags
            or run.status is not DagsterRunStatus.STARTED
            or clock() - began_at >= LONGEST
            or ask_for_sensor()
        )

    ask = asked_at_times(must_end, run_id, ASK_EVERY_SECONDS, monotonic)
    return lambda: ask() or ending()


class SetWorker:
    """Drains one set of shards, again and again."""

    def __init__(
        self,
        context: OpExecutionContext,
        source: DynamoDBSource,
        client: StreamClient,
        layout: Layout,
        shards: ShardSet,
        settings: DrainSettings,
        pause_seconds: float,
        clock: Clock,
    ) -> None:
        self._log = context.log
        self._source = source
        self._client = client
        self._layout = layout
        self._shards = shards
        self._settings = settings
        self._pause_seconds = pause_seconds
        self._clock = clock
        self._read_at: datetime | None = None
        self._unknown: Sequence[str] | None = None
        self._failing: Sequence[tuple[str, str]] | None = None
        self._drain_log = seldom(context.log, LOG_EVERY_SECONDS)
        self._failures = 0
        self._landed = (0, 0)
        self._logged_seconds = self._busy_seconds = time.monotonic()

    def signs(self) -> dict[str, str]:
        """Return the tags that tell the sensor how far this run is."""
        read = {} if self._read_at is None else {READ_TAG: self._read_at.isoformat()}
        unknown = {} if self._unknown is None else {UNKNOWN_TAG: ",".join(self._unknown)}
        failing = {} if self._failing is None else {FAILING_TAG: json.dumps(self._failing)}
        return {**read, **unknown, **failing}

    def drain(self, must_end: Callable[[], bool]) -> None:
        """Drain until the run must end, or has had no shard for a minute.

        Raises:
            DatazoneError: The stream or the lakehouse can't be used.
        """
        is_first = True
        self._log.info("Draining set %s of the shards of %s.", self._shards.name, self._source.name)
        while not must_end() and self._has_shards():
            report = self._drained(is_first=is_first)
            is_first = is_first and (report is None or report.table_unchecked)
            self._wait(self._next_seconds(report), must_end)
        self._log_progress(at_end=True)

    def _has_shards(self) -> bool:
        return time.monotonic() - self._busy_seconds < WITHOUT_SHARDS_SECONDS

    def _drained(self, *, is_first: bool) -> DrainReport | None:
        """Drain once; return None after a failure that usually passes."""
        began = self._clock()
        try:
            report = drain_tick(
                self._source,
                self._client,
                self._layout,
                settings=self._settings,
                clock=self._clock,
                logger=self._drain_log,
                listening=not self._pause_seconds,
                part=SetPart(self._shards, is_first=is_first),
            )
        except (ConcurrentWriterError, *TRANSIENT) as error:
            self._failures += 1
            if self._failures > len(WAITS_SECONDS):
                raise
            self._log.warning("A drain failed, and is tried again: %s", error)
            return None
        self._failures = 0
        if report.shards_unknown or self._unknown:
            self._unknown = report.shards_unknown[:_SHARDS_TOLD]
        if report.shard_errors or self._failing:
            errors = report.shard_errors[:_SHARDS_TOLD]
            self._failing = [(name, shortened(text, _ERROR_CHARS)) for name, text in errors]
        if report.shards_open or not report.caught_up:
            self._busy_seconds = time.monotonic()
        if report.caught_up:
            self._read_at = began - timedelta(seconds=report.latest_age_seconds)
        self._landed = (self._landed[0] + report.batches, self._landed[1] + report.records)
        self._log_progress()
        return report

    def _next_seconds(self, report: DrainReport | None) -> float:
        if report is None:
            return WAITS_SECONDS[self._failures - 1]
        if report.lost_race:
            return _LOOK_EVERY_SECONDS
        if not report.caught_up and report.batch is not None:
            return 0.0
        return max(self._pause_seconds, next_drain_seconds(self._client))

    def _wait(self, seconds: float, must_end: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0 and not must_end():
            time.sleep(min(left, _LOOK_EVERY_SECONDS))

    def _log_progress(self, *, at_end: bool = False) -> None:
        now, (batches, records) = time.monotonic(), self._landed
        if not batches or (not at_end and now - self._logged_seconds < LOG_EVERY_SECONDS):
            return
        text = f"{counted(records, 'record')} in {batches} {'batch' if batches == 1 else 'batches'}"
        self._log.info("Set %s: landed %s.", self._shards.name, text)
        self._logged_seconds, self._landed = now, (0, 0)
