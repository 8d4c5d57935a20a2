"""Automation conditions for assets downstream of a dataset."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dagster import AutomationCondition

from datazone_dagster.errors import DefinitionError

_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)


def on_applied(every: timedelta | None = None) -> AutomationCondition[Any]:
    """Return a condition that materializes an asset after changes were applied to its datasets.

    `AutomationCondition.eager()` waits until no run of a dataset is in progress. A run goes on
    while the stream has traffic, so it would wait for long. This condition does not: what a run
    has committed is complete in itself.

    Args:
        every: Shortest time between two materializations: whole minutes that divide an hour, or
            whole hours that divide a day. None: after each materialization of a dataset, which
            comes at most every 30 seconds.

    Raises:
        DefinitionError: `every` is another time.

    Example:
        ```python
        @asset(deps=["orders"], automation_condition=on_applied(every=timedelta(minutes=15)))
        def report() -> None: ...
        ```
    """
    condition: AutomationCondition[Any] = AutomationCondition.eager().without(
        ~AutomationCondition.any_deps_in_progress()
    )
    if every is None:
        return condition
    passed: AutomationCondition[Any] = AutomationCondition.cron_tick_passed(_cron(every))
    return condition & passed.since_last_handled()


def _cron(every: timedelta) -> str:
    minutes, hours = every / _MINUTE, every / _HOUR
    if minutes in range(1, 60) and 60 % int(minutes) == 0:
        return f"*/{int(minutes)} * * * *"
    if hours in range(1, 25) and 24 % int(hours) == 0:
        return f"0 */{int(hours)} * * *" if hours < 24 else "0 0 * * *"
    raise DefinitionError(
        f"on_applied(every={every!r}) is not a whole part of an hour or of a day.",
        hint="Give minutes that divide an hour, such as timedelta(minutes=15), or hours that "
        "divide a day.",
    )
