"""Drain runs that outlive `drain="runs"`: each is told to end, and ticks leave it the shards."""

from __future__ import annotations

from datetime import datetime, timedelta

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.dagster_glue.names import drain_job_name, sensor_name
from datazone_dagster.dagster_glue.runs.heartbeat import end_silent_runs, last_sign_of_life
from datazone_dagster.dagster_glue.runs.job_runs import ACTIVE
from datazone_dagster.dagster_glue.runs.placed_runs import PlacedRuns
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from datazone_dagster.dagster_glue.runs.staying_runs import tell_to_end
from datazone_dagster.dagster_glue.sensors.drain_rivals import Rivals, rivals_in
from datazone_dagster.model.drain_part import StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.shard_set import shard_sets
from datazone_dagster.pipeline import was_drained_by_runs

LOOK_AGAIN = timedelta(minutes=1)
"""Time between two looks while there are none: a tick of the former code may have requested one
after a look, and somebody may start one by hand."""

_ACTIVE_MOST = 200
_WHY = 'the source has drain="tick" now'


class FormerDrainRuns:
    """Looks for drain runs of a source that ticks drain: while one lives, and now and then.

    Each batch that such a run commits makes that of a tick lose. So while one lives, ticks do what
    they do next to drain runs: they list, and read no shard.

    Args:
        source: Source with `drain="tick"`.
        clock: Function that returns the time in UTC.
    """

    def __init__(self, source: DynamoDBSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._none_at: datetime | None = None
        self.conflict = ""
        """Sentence on another code location that drains the source by runs; empty if none does."""

    def part(
        self,
        instance: DagsterInstance,
        layout: Layout,
        place: RunPlace,
        reported_batch: int | None,
    ) -> StreamPart | None:
        """Return what a tick does of a drain while such a run lives; None: everything.

        The instance is asked only if drain runs have ever written the change log.

        Raises:
            StorageError: The lakehouse can't be read.
        """
        self.conflict, now = "", self._clock()
        if self._none_at is not None and now - self._none_at < LOOK_AGAIN:
            return None
        if not was_drained_by_runs(layout, self._source.name):
            self._none_at = now
            return None
        job = drain_job_name(self._source)
        end_silent_runs(instance, {job}, now, quick_to_end={job}, only=job)
        active = RunsFilter(job_name=job, statuses=ACTIVE)
        found = instance.get_run_records(active, limit=_ACTIVE_MOST)
        records = [one for one in found if not place.is_of_others(one.dagster_run)]
        placed = PlacedRuns(instance, place, sensor_name(self._source), now)
        rivals = rivals_in(placed, records, "")
        self.conflict = "" if rivals is None else _conflict(self._source, placed, rivals)
        others = () if rivals is None else rivals.records
        for record in records:
            if record not in others:
                tell_to_end(instance, record, _WHY)
        self._none_at = None if records else now
        started = [one for one in records if one.dagster_run.status is DagsterRunStatus.STARTED]
        if not any(last_sign_of_life(one) for one in started):
            return None
        # How far they are is not known: they end within seconds, and have sets of any number.
        return StreamPart(1, {shard_sets(1)[0].name: None}, reported_batch)


def _conflict(source: DynamoDBSource, placed: PlacedRuns, rivals: Rivals) -> str:
    return (
        f"The code location {rivals.location} drains {source.name} into {placed.place.lakehouse} "
        f'by runs (drain="runs"), and {placed.location} by ticks. Its runs go on, and the ticks '
        f"of {placed.location} read nothing. Keep the source in one code location, or give both "
        "the same DynamoDBSource."
    )
