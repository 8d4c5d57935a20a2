"""Runs of one place, and the end of those with other code.

Two code locations may have jobs of one name. Where their lakehouses differ, their runs have nothing
to do with each other. Where two work in one lakehouse, each would take the runs of the other for
those of its own former code, and end them, in turns. So the runs of a code location whose sensor
ticks are left to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from dagster import DagsterInstance, DagsterRun, RunRecord, RunsFilter

from datazone_dagster.dagster_glue.names import VERSION_TAG, hidden_tag
from datazone_dagster.dagster_glue.runs.run_place import RunPlace, repository_of
from datazone_dagster.dagster_glue.runs.staying_runs import end_run, end_run_of_other_code

TICKS_WITHIN = timedelta(minutes=2)
"""Time since its last tick within which a sensor is at work, or three of its intervals."""

_MOST_RECORDS = 200


@dataclass(frozen=True)
class PlacedRuns:
    """Runs that the sensor of a source requests, as seen from one place.

    Args:
        instance: Dagster instance.
        place: Lakehouse and code location of whoever looks.
        sensor: Name of the sensor, in every code location.
        now: Current time.
    """

    instance: DagsterInstance
    place: RunPlace
    sensor: str
    now: datetime

    @property
    def location(self) -> str:
        """Name of the code location; empty if it is not known."""
        return self.place.repository[0] if self.place.repository else ""

    def records(self, wanted: RunsFilter, limit: int | None = None) -> list[RunRecord]:
        """Return runs, the newest first, but those that say that they are of another place."""
        found = self.instance.get_run_records(wanted, limit=limit)
        own = self._own(found)
        if limit is None or len(own) == len(found) or len(found) < limit:
            return own
        return self._own(self.instance.get_run_records(wanted, limit=_MOST_RECORDS))[:limit]

    def _own(self, records: Sequence[RunRecord]) -> list[RunRecord]:
        return [one for one in records if not self.place.is_surely_of_others(one.dagster_run)]

    def end_outdated(self, record: RunRecord, version: str) -> str | None:
        """Tell a run to end that has another version or the former lakehouse; return why.

        None if it has neither, or if its own sensor sees to it.
        """
        if self.rival(record.dagster_run, version):
            return None
        if self.place.has_other_lakehouse(record.dagster_run):
            end_run(self.instance, record, "the lakehouse has changed")
            return "a run in the former lakehouse ends after its chunk"
        return end_run_of_other_code(self.instance, record, version)

    def rival(self, run: DagsterRun, version: str) -> str:
        """Return the code location at work that has requested a run of another version.

        Empty if the run has this version or is of this location, and if the sensor of the other
        one does not tick any more: that location was renamed or removed.
        """
        repository = repository_of(run)
        if repository is None or not self.place.is_elsewhere(run):
            return ""
        if hidden_tag(run.tags, VERSION_TAG) in (None, version):
            return ""
        return repository[0] if self._ticks(run) else ""

    def conflict(self, rival: str, does: str) -> str:
        """Return what is wrong where another code location does the same, and what to change.

        Args:
            rival: Name of the other code location.
            does: What both do, such as "apply orders".
        """
        own = self.location
        return (
            f"the code locations {own} and {rival} both {does} in {self.place.lakehouse}, with "
            f"other code or settings: while {rival} has a run, {own} starts no other one. "
            "Keep it in one of them, give both the same code, or give one another lakehouse"
        )

    def _ticks(self, run: DagsterRun) -> bool:
        """Return whether the sensor of a run's own code location is at work."""
        job, instance = run.remote_job_origin, self.instance
        if job is None or instance.schedule_storage is None:
            return False
        origin = job.repository_origin.get_instigator_origin(self.sensor)
        id_, selector = origin.get_id(), origin.get_selector().get_id()
        state = instance.get_instigator_state(id_, selector)
        if state is not None and state.status.value == "STOPPED":
            return False
        ticks = instance.get_ticks(id_, selector, limit=1)
        interval = getattr(state.instigator_data, "min_interval", None) if state else None
        within = max(TICKS_WITHIN, 3 * timedelta(seconds=interval or 0))
        return any(
            self.now - datetime.fromtimestamp(one.timestamp, timezone.utc) < within for one in ticks
        )
