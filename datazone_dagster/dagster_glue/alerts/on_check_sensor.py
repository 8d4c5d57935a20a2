"""The sensor that calls a user's function when a check fails, changes severity or recovers.

Open-source Dagster shows a failed check but does not notify anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dagster import AssetCheckKey, SensorDefinition, SensorEvaluationContext, SensorResult

from datazone_dagster.dagster_glue.alerts.alerting import INTERVAL_SECONDS, Alerting
from datazone_dagster.dagster_glue.alerts.alerts import OnCheck
from datazone_dagster.dagster_glue.names import ALERT_SENSOR
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.shared import Group, Member, shared
from datazone_dagster.model.protocols import Clock


def on_check_sensor(
    on_check: OnCheck,
    members: Sequence[Member],
    lakehouse: Lakehouse,
    options: RunOptions,
    clock: Clock,
) -> SensorDefinition:
    """Return the sensor that calls `on_check` once per change of a check of these transforms.

    It watches all checks of their datasets and sources, as `alert_sensor` watches those of a code
    location, without a limit per hour. If `on_check` raises, the error is logged, and the next tick
    calls it again with the latest evaluation, after the other checks. The cursor records the
    reported levels: after a reset, failing checks are reported again.
    """
    alerting = Alerting([on_check], clock=lambda: clock().timestamp())

    def evaluate(context: SensorEvaluationContext, group: Group) -> SensorResult:
        return alerting.evaluate(context, _check_keys(group.members_in(context.repository_def)))

    def arguments(group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "evaluation_fn": lambda context: evaluate(context, group),
            "minimum_interval_seconds": INTERVAL_SECONDS,
            "default_status": options.default_status,
            "description": "Calls your function when a check of a stream or a dataset fails, "
            "changes its severity or recovers.",
        }

    wanted = Group(
        ALERT_SENSOR,
        identical=(lakehouse, clock),
        equal={"on_check": on_check, "default_status": options.default_status},
    )
    return shared(wanted, members, SensorDefinition, arguments)[0]


def _check_keys(members: Sequence[Member]) -> list[AssetCheckKey]:
    """Return the keys of all checks of sources and datasets."""
    return [
        *dict.fromkeys(
            key
            for one in members
            if (source := one.transform.source).stream_enabled
            for key in (*one.keys.source_checks(source), one.keys.audit_check(source))
        ),
        *(
            key
            for one in members
            for dataset in one.transform.outputs.values()
            for key in one.keys.checks_of(one.transform, dataset)
        ),
    ]
