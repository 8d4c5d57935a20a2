"""Point-in-time recovery: on and off, and the times between which it reaches."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from datazone_dagster.local.history import forget
from datazone_dagster.local.service import Body, Call, member, optional_integer, text
from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.local.tables import Table, find_table, save_table

_DAYS_MAX = 35
_BEHIND_SECONDS = 300.0
"""Age of the latest time that a table can be restored to, as the service documents it."""


def found_table(call: Call, name: str) -> Table:
    """Return the table of a request about backups or exports, by name or ARN.

    Raises:
        ServiceError: `TableNotFoundException`.
    """
    try:
        return find_table(call, name)
    except ServiceError:
        raise ServiceError("TableNotFoundException", f"Table not found: {name}") from None


def update_continuous_backups(call: Call, body: Body) -> Body:
    """`UpdateContinuousBackups`: a table remembers its states from the moment it is enabled."""
    table = found_table(call, text(body, "TableName"))
    specification = member(body, "PointInTimeRecoverySpecification")
    enabled = specification.get("PointInTimeRecoveryEnabled")
    if not isinstance(enabled, bool):
        raise validation("PointInTimeRecoveryEnabled must be true or false")
    days = optional_integer(specification, "RecoveryPeriodInDays", 1, _DAYS_MAX) or _DAYS_MAX
    since = table.recoverable_since or call.clock.now()
    table = msgspec.structs.replace(
        table, recoverable_since=since if enabled else None, recoverable_days=days
    )
    save_table(call, table)
    if not table.remembers:
        forget(call, table)
    return _described(call, table)


def describe_continuous_backups(call: Call, body: Body) -> Body:
    """`DescribeContinuousBackups`."""
    return _described(call, found_table(call, text(body, "TableName")))


def earliest_restorable(call: Call, table: Table) -> float:
    """Return the earliest time of which the state of a table is known.

    Raises:
        ServiceError: `PointInTimeRecoveryUnavailableException`: recovery is not enabled.
    """
    if table.recoverable_since is None:
        raise ServiceError(
            "PointInTimeRecoveryUnavailableException",
            f"Point in time recovery is not enabled for table '{table.name}'",
        )
    window = timedelta(days=table.recoverable_days).total_seconds()
    return max(table.recoverable_since, call.clock.now() - window)


def _described(call: Call, table: Table) -> Body:
    recovery: Body = {"PointInTimeRecoveryStatus": "DISABLED"}
    if table.recoverable_since is not None:
        earliest = earliest_restorable(call, table)
        recovery = {
            "PointInTimeRecoveryStatus": "ENABLED",
            "RecoveryPeriodInDays": table.recoverable_days,
            "EarliestRestorableDateTime": earliest,
            "LatestRestorableDateTime": max(earliest, call.clock.now() - _BEHIND_SECONDS),
        }
    return {
        "ContinuousBackupsDescription": {
            "ContinuousBackupsStatus": "ENABLED",
            "PointInTimeRecoveryDescription": recovery,
        }
    }
