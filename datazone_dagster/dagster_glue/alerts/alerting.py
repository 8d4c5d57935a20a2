"""The sensor of alerts: tells each failure and each recovery of a check once, with links."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import quote

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    DagsterInstance,
    DefaultSensorStatus,
    EnvVar,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)

from datazone_dagster.dagster_glue.alerts.alerts import CheckEvent, OnCheck, event_of
from datazone_dagster.dagster_glue.sensors.sensor_checks import FAILED_RUN
from datazone_dagster.dagster_glue.ui_links import ui_address
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.alert_plan import OK, AlertState
from datazone_dagster.text import shown

INTERVAL_SECONDS = 30
"""Each evaluation is a row of 1.2 KB in Dagster's storage, also on an idle day."""
TICK_SECONDS = 20.0
"""Time after which a tick sends nothing more. Dagster ends ticks after 60 seconds."""

_KINDS = ("fail", "recover")
_SEVERITIES = ("WARN", "ERROR")


def alert_sensor(
    notify: OnCheck | Sequence[OnCheck],
    *,
    on: Collection[Literal["fail", "recover"]] = ("fail", "recover"),
    severity: Literal["WARN", "ERROR"] = "WARN",
    checks: Collection[str] | None = None,
    base_url: str | EnvVar | None = None,
    most_per_hour: int = 30,
    name: str = "datazone_alerts",
    default_status: DefaultSensorStatus = DefaultSensorStatus.RUNNING,
    clock: Callable[[], float] = time.time,
) -> SensorDefinition:
    """Return a sensor that tells when a check of its code location fails or recovers.

    Each change is told once, also across restarts: the cursor remembers what each notifier was
    told. What a notifier can't send is tried again at the next tick, and so is what follows: it is
    not asked again in the same tick, and a tick that took 20 seconds sends nothing more. Beyond
    `most_per_hour` messages one says that others are held back; they are told later, as they are
    by then.

    Args:
        notify: Function that takes a `CheckEvent`, such as `webhook(...)` or `slack(...)`; or
            several, of which the others go on if one fails. They are remembered by their order.
        on: `"fail"` tells new failures and changes of their severity, `"recover"` recoveries.
        severity: Lowest severity that is told, `"WARN"` or `"ERROR"`.
        checks: Names of the checks to watch, such as `{"lag", "drain"}`; None: every check of the
            code location, those of other assets included.
        base_url: Address of the UI, for links. Defaults to the environment variable
            `DAGSTER_WEBSERVER`; without either, there are no links.
        most_per_hour: Most messages in an hour, 1 or more.
        name: Name of the sensor.
        default_status: Status where Dagster sees the sensor for the first time.
        clock: Function that returns seconds since 1970; for tests.

    Raises:
        DefinitionError: An argument is invalid; the message names it and its allowed values.

    Example:
        ```python
        alerts = alert_sensor(slack(EnvVar("SLACK_WEBHOOK_URL")), severity="ERROR")
        defs = Definitions.merge(build_definitions([orders]), Definitions(sensors=[alerts]))
        ```
    """
    notifiers = tuple(notify) if isinstance(notify, Sequence) else (notify,)
    _check(notifiers, on, severity, most_per_hour)

    alerting = Alerting(notifiers, on, severity, base_url, most_per_hour, clock)

    def evaluate(context: SensorEvaluationContext) -> SensorResult:
        return alerting.evaluate(context, _all_keys(context, checks))

    return SensorDefinition(
        name=name,
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=default_status,
        description="Tells when a check fails or recovers, once.",
    )


@dataclass(frozen=True, slots=True)
class Alerting:
    """Evaluation of a sensor that tells changes of checks.

    Args:
        notifiers: Functions that are told each change once.
        on: As for `alert_sensor`.
        severity: As for `alert_sensor`.
        base_url: As for `alert_sensor`.
        most_per_hour: As for `alert_sensor`; None: no limit.
        clock: As for `alert_sensor`.
    """

    notifiers: Sequence[OnCheck]
    on: Collection[str] = _KINDS
    severity: str = "WARN"
    base_url: str | EnvVar | None = None
    most_per_hour: int | None = None
    clock: Callable[[], float] = time.time

    def evaluate(
        self, context: SensorEvaluationContext, keys: Sequence[AssetCheckKey]
    ) -> SensorResult:
        """Tell what has changed of some checks since the cursor.

        Args:
            context: Context of the tick.
            keys: Keys of the checks, in the order in which they are told.
        """
        most = self.most_per_hour
        state = AlertState.parse(context.cursor, len(self.notifiers)).without_old(self.clock())
        found = dict(_latest(context.instance, keys))
        levels = {check: OK if one.passed else one.severity.value for check, one in found.items()}
        state, due = state.due(levels, on=self.on, least=self.severity)
        post = _Post(context, self.notifiers, _Links(self.base_url), self.clock)
        told, held = set[str](), set[str]()
        for notifier, check in due:
            if most is not None and check not in told and len(state.sent) >= most:
                held.add(check)
            elif post.is_open(notifier):
                event = event_of(found[check], state.level(notifier, check))
                if post.takes(notifier, event):
                    at = None if most is None or check in told else self.clock()
                    state = state.told(notifier, check, levels[check], at)
                    told.add(check)
                else:
                    state = state.not_taken(notifier, check)
        if most is not None and held and not state.is_held:
            event = CheckEvent("", "alerts", False, "WARN", _held_back(len(held), most))
            numbers = range(len(self.notifiers))
            asked = [post.takes(at, event) for at in numbers if post.is_open(at)]
            state = replace(state, is_held=any(asked))
        elif not held:
            state = replace(state, is_held=False)
        left = {check for at, check in due if state.level(at, check) != levels[check]} - held
        limited = "" if most is None else f", {len(held)} held back"
        return SensorResult(
            skip_reason=SkipReason(f"{len(told)} sent, {len(left)} to be retried{limited}."),
            cursor=state.to_json(),
        )


def _check(
    notifiers: Sequence[object], on: Collection[str], severity: str, most_per_hour: int
) -> None:
    if not notifiers or not all(map(callable, notifiers)):
        raise DefinitionError(
            "alert_sensor: notify is not a function.",
            hint="Give webhook(...), slack(...), apprise(...) or a function of one CheckEvent.",
        )
    if isinstance(on, str) or not on or not set(on) <= set(_KINDS):
        raise DefinitionError(
            f"alert_sensor: on={on!r} is unknown.", hint='Give some of ("fail", "recover").'
        )
    if severity not in _SEVERITIES:
        raise DefinitionError(
            f"alert_sensor: severity={severity!r} is unknown.", hint="Give 'WARN' or 'ERROR'."
        )
    if isinstance(most_per_hour, bool) or not isinstance(most_per_hour, int) or most_per_hour < 1:
        raise DefinitionError(
            f"alert_sensor: most_per_hour={most_per_hour!r} is not a number of messages.",
            hint="Give an int, 1 or more.",
        )


def _all_keys(
    context: SensorEvaluationContext, checks: Collection[str] | None
) -> Sequence[AssetCheckKey]:
    """Return the keys of the checks of a code location, or of those with some names."""
    repository = context.repository_def
    keys = repository.asset_graph.asset_check_keys if repository else ()
    return sorted(
        (key for key in keys if checks is None or key.name in checks),
        key=lambda key: (key.asset_key.to_user_string(), key.name),
    )


def _latest(
    instance: DagsterInstance, keys: Sequence[AssetCheckKey]
) -> Iterator[tuple[str, AssetCheckEvaluation]]:
    """Yield the last evaluation of each check, by name; none while a run is about to make one."""
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    for key in keys:
        record = found.get(key)
        event = record.event.dagster_event if record is not None and record.event else None
        facts = event.event_specific_data if event is not None else None
        if isinstance(facts, AssetCheckEvaluation):
            yield f"{key.asset_key.to_user_string()}:{key.name}", facts


def _held_back(held: int, most_per_hour: int) -> str:
    alerts = "1 more alert is" if held == 1 else f"{held} more alerts are"
    return (
        f"{alerts} held back: most_per_hour={most_per_hour} messages were sent in the last hour. "
        "What fails then is told later."
    )


class _Post:
    """Notifiers during a tick: one that fails is not asked again, and none after a while."""

    def __init__(
        self,
        context: SensorEvaluationContext,
        notifiers: Sequence[OnCheck],
        links: _Links,
        clock: Callable[[], float],
    ) -> None:
        self._context = context
        self._notifiers = notifiers
        self._links = links
        self._clock = clock
        self._ends = clock() + TICK_SECONDS
        self._failed = set[int]()

    def is_open(self, notifier: int) -> bool:
        """Return whether a notifier may be asked now."""
        return notifier not in self._failed and self._clock() < self._ends

    def takes(self, notifier: int, event: CheckEvent) -> bool:
        """Call a notifier; return whether it took the event."""
        # Broad on purpose: a notifier may be the user's code, and the others go on.
        try:
            self._notifiers[notifier](self._links.add_to(event))
        except Exception as error:  # noqa: BLE001 - see above
            self._context.log.error("An alert of %s was not sent: %s", event.asset, shown(error))
            self._failed.add(notifier)
            return False
        return True


class _Links:
    """Links into the UI."""

    def __init__(self, base_url: str | EnvVar | None) -> None:
        self._base = ui_address(base_url)

    def add_to(self, event: CheckEvent) -> CheckEvent:
        """Return the event with links to the check and to the failed run behind it."""
        run_id = str(event.metadata.get(FAILED_RUN, "")) if not event.passed else ""
        if not self._base:
            return replace(event, run_id=run_id)
        link = f"{self._base}/overview/sensors"
        if event.asset:
            path = quote(event.asset, safe="/")
            link = f"{self._base}/assets/{path}?view=checks&checkDetail={quote(event.check)}"
        run_link = f"{self._base}/runs/{quote(run_id)}" if run_id else ""
        return replace(event, link=link, run_id=run_id, run_link=run_link)
