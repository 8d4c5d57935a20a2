"""Where a run belongs: runs of one job name may be of several code locations and lakehouses."""

from __future__ import annotations

from dataclasses import dataclass

from dagster import DagsterRun, SensorEvaluationContext

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
        return cls(without_secrets(layout.uri), _repository_of(run))

    def has_other_lakehouse(self, run: DagsterRun) -> bool:
        """Return whether a run was requested for another lakehouse: it lands nothing in this one.

        A run that somebody started by hand does not say.
        """
        return hidden_tag(run.tags, LAKEHOUSE_TAG) not in (None, self.lakehouse)

    def is_of_others(self, run: DagsterRun) -> bool:
        """Return whether a run of another code location does not land in this lakehouse.

        It has the name of ours, but neither counts as one nor is it told to end.
        """
        repository = _repository_of(run)
        return (
            None not in (self.repository, repository)
            and repository != self.repository
            and hidden_tag(run.tags, LAKEHOUSE_TAG) != self.lakehouse
        )


def _repository_of(run: DagsterRun) -> tuple[str, str] | None:
    if run.remote_job_origin is None:
        return None
    origin = run.remote_job_origin.repository_origin
    return origin.code_location_origin.location_name, origin.repository_name
