"""Where a run belongs: runs of one job name may be of several code locations and lakehouses."""

from __future__ import annotations

from dataclasses import dataclass

from dagster import DagsterInstance, DagsterRun, SensorEvaluationContext

from datazone_dagster.dagster_glue.names import LAKEHOUSE_TAG, hidden_tag
from datazone_dagster.model.layout import Layout
from datazone_dagster.text import without_secrets


@dataclass(frozen=True)
class RunPlace:
    """The lakehouse and the code location of whoever looks at runs.

    Args:
        lakehouse: Location of the tables, as it stands in the tag of requested runs.
        repository: Code location and repository; None if they are not known.
    """

    lakehouse: str
    repository: tuple[str, str] | None = None

    @classmethod
    def of_tick(cls, context: SensorEvaluationContext, layout: Layout) -> RunPlace:
        """Return the place of a sensor."""
        origin, name = context.code_location_origin, context.repository_name
        repository = None if origin is None or name is None else (origin.location_name, name)
        return cls(without_secrets(layout.uri), repository)

    @classmethod
    def of_run(cls, run: DagsterRun, layout: Layout) -> RunPlace:
        """Return the place of a run."""
        return cls(without_secrets(layout.uri), repository_of(run))

    def has_other_lakehouse(self, run: DagsterRun) -> bool:
        """Return whether a run was requested for another lakehouse: it lands nothing in this one.

        A run that somebody started by hand does not say, until it has begun.
        """
        return hidden_tag(run.tags, LAKEHOUSE_TAG) not in (None, self.lakehouse)

    def is_elsewhere(self, run: DagsterRun) -> bool:
        """Return whether a run is known to be of another code location."""
        repository = repository_of(run)
        return None not in (self.repository, repository) and repository != self.repository

    def is_of_others(self, run: DagsterRun) -> bool:
        """Return whether a run of another code location does not land in this lakehouse.

        It has the name of ours, but neither counts as one nor is it told to end.
        """
        return self.is_elsewhere(run) and hidden_tag(run.tags, LAKEHOUSE_TAG) != self.lakehouse

    def is_surely_of_others(self, run: DagsterRun) -> bool:
        """Return the same, where a run that does not name its lakehouse counts as one of ours."""
        return self.is_elsewhere(run) and self.has_other_lakehouse(run)


def repository_of(run: DagsterRun) -> tuple[str, str] | None:
    """Return the code location and the repository of a run; None if Dagster did not store them."""
    if run.remote_job_origin is None:
        return None
    origin = run.remote_job_origin.repository_origin
    return origin.code_location_origin.location_name, origin.repository_name


def name_lakehouse(instance: DagsterInstance, run: DagsterRun, layout: Layout) -> None:
    """Note the lakehouse of a run that somebody started by hand, for sensors of other places."""
    if hidden_tag(run.tags, LAKEHOUSE_TAG) is None:
        instance.add_run_tags(run.run_id, {LAKEHOUSE_TAG: without_secrets(layout.uri)})
