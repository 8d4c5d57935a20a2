"""Drain sensor: drains a stream into its change log, reports, and requests runs downstream."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from dagster import (
    AssetCheckEvaluation,
    AssetMaterialization,
    DagsterInstance,
    RunRequest,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.api.kinesis_source import stream_name_of
from datazone_dagster.dagster_glue.checks.first_backlogs import FirstBacklogs
from datazone_dagster.dagster_glue.checks.rendering import change_log_metadata
from datazone_dagster.dagster_glue.names import (
    DYNAMODB_KEY,
    LAKEHOUSE_KEY,
    sensor_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from datazone_dagster.dagster_glue.sensors.cursor import SensorCursor
from datazone_dagster.dagster_glue.sensors.drain_runs import DrainRuns
from datazone_dagster.dagster_glue.sensors.drained import Failed, Succeeded, failed_with, health_of
from datazone_dagster.dagster_glue.sensors.findings import Findings
from datazone_dagster.dagster_glue.sensors.former_drain_runs import FormerDrainRuns
from datazone_dagster.dagster_glue.sensors.freshness import known_caught_up_at
from datazone_dagster.dagster_glue.sensors.listening import (
    BUSY_FOR_SECONDS,
    LISTENERS,
    idle_until_seconds,
    may_listen,
    most_listeners,
)
from datazone_dagster.dagster_glue.sensors.runs_wanted import RunsWanted
from datazone_dagster.dagster_glue.sensors.sensor_checks import (
    Due,
    SensorCheck,
    StreamReads,
    after_gap,
    complete_checks,
    lag_checks,
    snapshot_check,
    stream_checks,
    with_snapshot,
    with_unwatched,
    with_warning,
)
from datazone_dagster.dagster_glue.sensors.snapshot_requests import (
    SnapshotDecision,
    decide_snapshot,
)
from datazone_dagster.dagster_glue.sensors.tick_maintenance import TickMaintenance
from datazone_dagster.dagster_glue.sensors.tick_summary import batches_text, counted, tick_summary
from datazone_dagster.dagster_glue.shared import Group
from datazone_dagster.dagster_glue.ui_links import sensor_link
from datazone_dagster.errors import DatazoneError, SourceMismatchError, StoreUnavailableError
from datazone_dagster.model.drain_part import DrainPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.memory_budget import MemoryBudget
from datazone_dagster.model.protocols import Clock, StreamClient
from datazone_dagster.model.report import DrainReport
from datazone_dagster.pipeline import (
    DrainSettings,
    applied_of_logs,
    drain_tick,
    next_drain_seconds,
    take_over_state,
)
from datazone_dagster.process import crash_points
from datazone_dagster.process.shutdown import shutdown_requested


class _Tick(NamedTuple):
    """One evaluation of the sensor."""

    context: SensorEvaluationContext
    layout: Layout
    transforms: Sequence[Transform]

    @property
    def dynamodb(self) -> DynamoDBStreamsResource:
        """Connection to the service."""
        resource: DynamoDBStreamsResource = getattr(self.context.resources, DYNAMODB_KEY)
        return resource


class DrainSensor:
    """Evaluates the ticks of one source. Overlapping ticks are harmless.

    A tick whose drain fails still reports its checks and requests the runs that earlier drains
    made necessary. The tick itself fails only if it requests no run, since Dagster drops the
    requests of a failed tick.
    """

    def __init__(
        self,
        source: DynamoDBSource,
        group: Group,
        settings: DrainSettings,
        options: RunOptions,
        clock: Clock,
    ) -> None:
        self._options = options
        self._keys = options.keys
        self._source = source
        self._group = group
        self._settings = settings
        self._clock = clock
        self._client: tuple[dict[str, object], StreamClient] | None = None
        self._is_client_outdated = False
        self._conflict = ""
        self._unsaved: SensorCursor | None = None
        self._drained_at: datetime | None = None
        self._reported_batch: int | None = None
        self._landed_seconds = -BUSY_FOR_SECONDS
        self._maintenance = TickMaintenance(source.name, settings.keep_changes, clock)
        self._first_backlogs = FirstBacklogs(self._keys)
        self._former_runs = FormerDrainRuns(source, clock)
        self._loaded_at = clock()

    def evaluate(self, context: SensorEvaluationContext) -> SensorResult:
        """Drain the stream, listen while nothing is to be told, report and request runs."""
        until_seconds = time.monotonic() + self._settings.listen_seconds
        layout: Layout = getattr(context.resources, LAKEHOUSE_KEY).layout
        tick = _Tick(context, layout, self._group.transforms_in(context.repository_def))
        cursor = self._unsaved or SensorCursor.parse(context.cursor, now=self._clock())
        drained = self._drain(tick)
        found = self._found(tick, drained, cursor)
        if self._source.drain == "tick" and may_listen(
            context.instance, layout, self._settings, self._options.tick_seconds
        ):
            drained, found = self._listened(tick, drained, found, cursor, until_seconds)

        now = self._clock()
        idle = found.is_idle(drained.report)
        due = Due.at(now, cursor, idle=idle)
        events: list[AssetMaterialization | AssetCheckEvaluation] = [
            *self._materialization(tick, drained.report, now),
            *(
                one.event()
                for one in found.checks
                if one.must_be_reported(cursor, due, context.instance)
            ),
        ]
        after = SensorCursor(
            caught_up_at=found.caught_up_at,
            never_read=found.never_read,
            evaluated_at=now if due.now else cursor.evaluated_at,
            hourly_at=now if due.hourly else cursor.hourly_at,
            idle=idle if due.now else cursor.idle and idle,
            **StreamReads.after(drained.report, cursor, now)._asdict(),
            levels={one.name: one.level for one in found.checks},
        )
        if drained.error is not None and not found.requests:
            # Dagster stores neither the events nor the cursor of a failed tick.
            for event in events:
                context.instance.report_runless_asset_event(event)
            self._unsaved = after
            raise drained.error
        self._unsaved = None
        if drained.error is not None:
            context.log.error("The drain failed: %s", drained.error)
        did = tick_summary(drained.report, told_to_end=shutdown_requested())
        summary = "; ".join((did, *found.reasons))
        if found.requests:
            context.log.info("%s", summary)
        crash_points.reach(crash_points.BEFORE_CURSOR)
        return SensorResult(
            run_requests=list(found.requests),
            skip_reason=None if found.requests else SkipReason(summary),
            cursor=after.to_json(),
            asset_events=events,
        )

    def _listened(
        self,
        tick: _Tick,
        drained: Succeeded | Failed,
        found: Findings,
        cursor: SensorCursor,
        until_seconds: float,
    ) -> tuple[Succeeded | Failed, Findings]:
        """Drain again and again until something is to be told, or the tick must end.

        Each drain is one of its own: what it landed stays, whatever happens to the next one, which
        the next tick meets again if it fails.
        """
        began_seconds = until_seconds - self._settings.listen_seconds
        most, busy = most_listeners(tick.context.instance), self._is_busy(drained.report)
        if not busy:
            until_seconds = began_seconds + idle_until_seconds(self._settings)
        with LISTENERS.place(most, busy=busy) as place:
            while place is not None and drained.report is not None and found.is_quiet(cursor):
                client = self._client_of(tick.dynamodb)
                if not place.waits(next_drain_seconds(client), until_seconds):
                    break
                left = self._settings.at_age(time.monotonic() - began_seconds)
                more = self._drain(tick, left)
                if more.report is None:
                    tick.context.log.warning("A tick ends early, as a drain failed: %s", more.error)
                    break
                if self._is_busy(more.report):
                    place.set_busy()
                found = self._found(tick, more, cursor)
                drained = Succeeded(drained.report.then(more.report))
        return drained, found

    def _is_busy(self, report: DrainReport | None) -> bool:
        """Return whether the stream has traffic, by a drain just now and those before it."""
        if report is not None and report.batch is not None:
            self._landed_seconds = time.monotonic()
        return time.monotonic() - self._landed_seconds < BUSY_FOR_SECONDS

    def _found(self, tick: _Tick, drained: Succeeded | Failed, cursor: SensorCursor) -> Findings:
        """Return what a drain has found: the checks, and the runs that must be requested."""
        layout, instance, now = tick.layout, tick.context.instance, self._clock()
        caught_up_at, never_read = self._last_read(drained.report, cursor, instance, now)
        health = health_of(drained, self._source, now, caught_up_at, never_read=never_read)
        # A store that is down has used up the time of the drain: nothing else asks it in this tick.
        asked = () if isinstance(drained.error, StoreUnavailableError) else tick.transforms
        lags = lag_checks(
            asked,
            self._keys,
            layout,
            drained.report,
            now=now,
            caught_up_at=caught_up_at,
            never_read=never_read,
            judge=self._first_backlogs.judge(instance, now),
        )
        requests: list[RunRequest] = []
        reasons: list[str] = []
        # The changes that wait in the change log of another table are not for these transforms.
        if not isinstance(drained.error, SourceMismatchError):
            place = RunPlace.of_tick(tick.context, layout)
            found = RunsWanted(self._source, self._group, self._options, instance, layout, place)
            requests, reasons = found.requested(asked, lags, now=now, loaded_at=self._loaded_at)
        # Runs read the time from this check: there is none to read before the first full read.
        known_at = None if never_read else caught_up_at
        reads = StreamReads.after(drained.report, cursor, now)
        source, keys = self._source, self._keys
        checks = [*stream_checks(source, keys, health, known_at, reads, now), *lags.values()]
        if drained.report is not None:
            checks += complete_checks(source, keys, drained.report, lags)
            checks[0] = with_unwatched(checks[0], source, cursor.polled_at, now)
            checks[0], decision = self._snapshot(tick, drained.report, checks[0], now)
            checks.append(snapshot_check(source, keys, drained.report.snapshot, decision))
            requests, reasons = requests + decision.requests, reasons + decision.reasons
        if (runs := self._runs(tick)) is not None:
            of_sets = runs.requested(drained.known, now, self._loaded_at)
            requests, reasons = of_sets.requests + requests, reasons + of_sets.reasons
            checks[0] = of_sets.told_in(checks[0])
        if self._memory.is_too_large:
            checks[0] = with_warning(checks[0], self._memory.note)
        if self._conflict:
            checks[0] = with_warning(checks[0], self._conflict)
            reasons = [*reasons, self._conflict]
        return Findings(drained.report, caught_up_at, never_read, checks, requests, reasons)

    def _drain(self, tick: _Tick, left: DrainSettings | None = None) -> Succeeded | Failed:
        context, layout, transforms = tick
        part: DrainPart | None = None
        try:
            part = self._part(tick)
            ids = [dataset.id for one in transforms for dataset in one.outputs.values()]
            report = drain_tick(
                self._source,
                self._client_of(tick.dynamodb),
                layout,
                settings=left or self._settings,
                clock=self._clock,
                logger=context.log,
                listening=left is not None,
                part=part,
                applied=applied_of_logs(self._source.name, ids, layout),
            )
        except DatazoneError as error:
            # The next tick builds a new client: credentials and endpoints may have changed.
            self._is_client_outdated = True
            return failed_with(error, part, self._source, layout, self._clock(), context.log)
        self._maintenance.after(report, context, layout, transforms)
        self._reported_batch = report.head_batch
        return Succeeded(report)

    def _runs(self, tick: _Tick) -> DrainRuns | None:
        """Return what decides on drain runs; None where ticks drain."""
        if self._source.drain == "tick":
            return None
        instance = tick.context.instance
        place = RunPlace.of_tick(tick.context, tick.layout)
        return DrainRuns(self._source, self._settings, self._options, instance, place)

    def _part(self, tick: _Tick) -> DrainPart | None:
        """Return what a tick does of a drain: everything, or what drain runs do not."""
        runs = self._runs(tick)
        if runs is not None:
            part, self._conflict = runs.look(self._clock(), self._reported_batch)
            return part
        instance, layout = tick.context.instance, tick.layout
        place = RunPlace.of_tick(tick.context, layout)
        former = self._former_runs.part(instance, layout, place, self._reported_batch)
        self._conflict = self._former_runs.conflict
        return former

    @property
    def _memory(self) -> MemoryBudget:
        """Budget of the drains of this process; drain runs have processes of their own."""
        return self._settings.memory if self._source.drain == "tick" else MemoryBudget(0)

    def _client_of(self, dynamodb: DynamoDBStreamsResource) -> StreamClient:
        """Return the client of all ticks of this process, with its connections and iterators."""
        settings = dict(dynamodb)
        former = self._client
        if former is None or self._is_client_outdated or former[0] != settings:
            client = dynamodb.stream_client(
                self._source.table_name,
                region=self._source.region,
                endpoint_url=self._source.endpoint_url,
                stream_name=stream_name_of(self._source),
                max_pool_connections=self._settings.max_workers,
            )
            if former is not None:
                take_over_state(client, former[1])
            self._client, self._is_client_outdated = (settings, client), False
            return client
        return former[1]

    def _last_read(
        self,
        report: DrainReport | None,
        cursor: SensorCursor,
        instance: DagsterInstance,
        now: datetime,
    ) -> tuple[datetime, bool]:
        """Return when the stream was last read to its end; else the first attempt, and True."""
        if report is not None and report.caught_up:
            return now - timedelta(seconds=report.latest_age_seconds), False
        if cursor.caught_up_at is not None:
            return cursor.caught_up_at, cursor.never_read
        known = known_caught_up_at(instance, self._source, self._keys)
        return (now, True) if known is None else (known, False)

    def _snapshot(
        self, tick: _Tick, report: DrainReport, health: SensorCheck, now: datetime
    ) -> tuple[SensorCheck, SnapshotDecision]:
        place = RunPlace.of_tick(tick.context, tick.layout)
        placed = PlacedRuns(tick.context.instance, place, sensor_name(self._source), now)
        decision = decide_snapshot(
            self._source,
            report.snapshot,
            placed,
            self._keys,
            loaded_at=self._loaded_at,
            run_tags=self._options.run_tags,
        )
        if report.gaps:
            health = after_gap(health, self._source, tick.layout, tick.dynamodb, self._clock)
        return with_snapshot(health, decision), decision

    def _materialization(
        self, tick: _Tick, report: DrainReport | None, now: datetime
    ) -> Iterator[AssetMaterialization]:
        before, self._drained_at = self._drained_at, now if report else self._drained_at
        if report is not None and report.batch is not None:
            since = 0.0 if before is None else (now - before).total_seconds()
            uri = tick.layout.change_log(self._source.name)
            link = sensor_link(tick.context, sensor_name(self._source))
            yield AssetMaterialization(
                self._keys.change_log(self._source),
                description=f"{batches_text(report)}: {counted(report.records, 'record')}.",
                metadata=change_log_metadata(
                    report,
                    uri,
                    now,
                    since_seconds=since,
                    sensor_link=link,
                    memory_note=self._memory.note,
                ),
            )
