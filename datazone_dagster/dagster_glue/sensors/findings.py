"""Findings of a drain: what the tick of a sensor tells Dagster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dagster import RunRequest

from datazone_dagster.dagster_glue.sensors.cursor import SensorCursor
from datazone_dagster.dagster_glue.sensors.sensor_checks import SensorCheck
from datazone_dagster.model.report import DrainReport


@dataclass(frozen=True, slots=True)
class Findings:
    """Findings of one drain.

    Args:
        report: Report of the drain; None if it failed.
        caught_up_at: Time when the stream was last read to its end.
        never_read: Whether it never was; `caught_up_at` is the time of the first attempt then.
        checks: Checks of the source and its datasets.
        requests: Runs to request.
        reasons: Why they are requested, or no other ones are.
    """

    report: DrainReport | None
    caught_up_at: datetime
    never_read: bool
    checks: Sequence[SensorCheck]
    requests: Sequence[RunRequest]
    reasons: Sequence[str]

    def is_quiet(self, before: SensorCursor) -> bool:
        """Return whether Dagster need not be told anything now, so that a tick may go on.

        A tick ends at once if there is a run to request, a check to report, a gap or a snapshot,
        which goes on tick by tick, or if the drain has met an error, another drain or its budget.
        """
        report = self.report
        return (
            report is not None
            and report.caught_up
            and not (report.lost_race or report.shard_errors or report.gaps or self.requests)
            and (report.snapshot is None or report.snapshot.is_over)
            and before.evaluated_at is not None
            and not any(before.has_changed(one.name, one.level) for one in self.checks)
        )

    def is_idle(self, tick: DrainReport | None) -> bool:
        """Return whether a tick has found nothing at all: no record, and no check that fails."""
        return (
            tick is not None
            and tick.caught_up
            and tick.batch is None
            and not self.reasons
            and all(one.level.passed for one in self.checks)
        )
