"""The runs that a tick requests: one per transform with a backlog, or one for all of a source."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from dagster import DagsterInstance, RunRequest

from datazone_dagster.api import DynamoDBSource, Transform
from datazone_dagster.dagster_glue.names import (
    resync_job_name,
    sensor_name,
    snapshot_job_name,
    source_job_name,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.runs.bucket_runs import decide_runs
from datazone_dagster.dagster_glue.runs.celery_executor import hands_steps_to_broker
from datazone_dagster.dagster_glue.runs.heartbeat import end_silent_runs
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from datazone_dagster.dagster_glue.runs.run_requests import RunDecider, RunDecision
from datazone_dagster.dagster_glue.runs.source_run_requests import decide_source_run, end_source_run
from datazone_dagster.dagster_glue.runs.staying_runs import definition_version
from datazone_dagster.dagster_glue.runs.stuck_starts import end_stuck_starts
from datazone_dagster.dagster_glue.sensors.sensor_checks import (
    SensorCheck,
    with_failures,
    with_wait,
    with_warning,
)
from datazone_dagster.dagster_glue.shared import Group
from datazone_dagster.model.layout import Layout


@dataclass(frozen=True)
class RunsWanted:
    """Decides on the runs of one source.

    Args:
        source: The source.
        group: Its transforms.
        options: Tags of the runs, and the shortest time between two runs.
        instance: Dagster instance, for the latest runs.
        layout: Locations of the tables.
        place: Lakehouse and code location of the sensor.
    """

    source: DynamoDBSource
    group: Group
    options: RunOptions
    instance: DagsterInstance
    layout: Layout
    place: RunPlace

    def requested(
        self,
        transforms: Sequence[Transform],
        lags: MutableMapping[str, SensorCheck],
        *,
        now: datetime,
        loaded_at: datetime,
    ) -> tuple[list[RunRequest], list[str]]:
        """Return the runs to request and the reasons; failures in a row are added to `lags`.

        Args:
            transforms: Transforms of the code location.
            lags: Check `lag` of each dataset, by id.
            now: Current time.
            loaded_at: Time when the code location was loaded.
        """
        self._end_lost_runs(transforms, now)
        placed = PlacedRuns(self.instance, self.place, sensor_name(self.source), now)
        heads: dict[str, int] = {}
        for transform in transforms:
            known = (lags[dataset.id].lag for dataset in transform.outputs.values())
            found = [one.head_batch for one in known if one is not None and one.pending_batches]
            if found:
                heads[transform.name] = max(found)
        versions = {one.name: self._version(one) for one in transforms}
        requests: list[RunRequest] = []
        reasons: list[str] = []
        decisions: dict[str, RunDecision] = {}
        waiting = [one for one in transforms if one.name in heads]
        together = [one for one in transforms if self.group.members[one.name].applier.shares_runs]
        if any(one in together for one in waiting):
            request, reason, decisions = decide_source_run(
                self.source,
                together,
                self.layout,
                placed,
                self.options,
                versions=versions,
                heads={one.name: heads[one.name] for one in waiting if one in together},
                loaded_at=loaded_at,
            )
            reasons.append(reason)
            requests += [] if request is None else [request]
        alone = [one for one in waiting if one not in together]
        ends, conflict = end_source_run(placed, self.source) if alone and not together else ("", "")
        if ends:
            reasons.append(ends)
            decisions = {one.name: RunDecision(None, ends, conflict=conflict) for one in alone}
            alone = []
        for transform in alone:
            decider = RunDecider(
                transform,
                self.layout,
                placed,
                self.options,
                versions[transform.name],
                heads[transform.name],
                loaded_at,
            )
            of_buckets = decide_runs(decider)
            reasons += [one.reason for one in of_buckets]
            requests += [one.request for one in of_buckets if one.request is not None]
            if of_buckets:
                worst = max(of_buckets, key=lambda one: one.failures)
                conflict = next((one.conflict for one in of_buckets if one.conflict), "")
                decisions[transform.name] = replace(worst, conflict=conflict)
        for transform in waiting:
            decision = decisions.get(transform.name, RunDecision(None, ""))
            for dataset in transform.outputs.values():
                lags[dataset.id] = _with_decision(lags[dataset.id], decision)
        return requests, reasons

    def _end_lost_runs(self, transforms: Sequence[Transform], now: datetime) -> None:
        """End runs whose process has died, or has not begun."""
        jobs = {one(self.source) for one in (snapshot_job_name, resync_job_name, source_job_name)}
        own = {one.job_name for one in transforms}
        quick = own | {source_job_name(self.source)}
        handed_on = own if hands_steps_to_broker(self.options.executor) else set()
        end_silent_runs(self.instance, jobs | own, now, quick_to_end=quick, handed_on=handed_on)
        end_stuck_starts(self.instance, jobs | own, now)

    def _version(self, transform: Transform) -> str:
        """Return the version of a transform and of the settings of its runs."""
        applier, tags = self.group.members[transform.name].applier, self.options.op_tags
        of_runs = (applier.settings, applier.preview, applier.keys.prefix)
        return definition_version(transform, *of_runs, sorted(tags.items()))


def _with_decision(check: SensorCheck, decision: RunDecision) -> SensorCheck:
    """Return a `lag` check that also tells why its transform gets no run, if somebody must know."""
    if decision.failures:
        check = with_failures(check, decision)
    if decision.waits_until is not None:
        check = with_wait(check, decision.reason, decision.waits_until)
    return with_warning(check, decision.conflict) if decision.conflict else check
