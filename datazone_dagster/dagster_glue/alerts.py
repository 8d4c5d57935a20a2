"""Alerts: a sensor that calls a user's function when a check fails, changes severity or recovers.

Open-source Dagster shows a failed check but does not notify anybody.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, cast

from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    DagsterInstance,
    EnvVar,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    SkipReason,
)

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.names import (
    ALERT_SENSOR,
    audit_check_key,
    checks_of_dataset,
    source_check_keys,
)
from datazone_dagster.dagster_glue.options import RunOptions
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.dagster_glue.shared import Group, Member, shared
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.protocols import Clock

INTERVAL_SECONDS = 10
TICK_SECONDS = 20.0
"""Time after which a tick sends nothing more. Dagster ends ticks after 60 seconds."""

_OK = "OK"


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """A check that failed, changed its severity or recovered.

    `str(event)` is the event as one line of text.

    Args:
        asset: Key of the asset, its components joined by `/`.
        check: `"lag"`, `"schema"`, `"quarantine"`, `"complete"`, `"function"`,
            `"small_files"`, `"unique_keys"`, `"expect_<name>"`, `"stream_health"`, `"headroom"`,
            `"snapshot"`, `"drain"` or `"audit"`.
        passed: False if the check fails, True if it has recovered.
        severity: `"WARN"` or `"ERROR"`; for a recovered check, its severity before that.
        description: Text of the evaluation: what is wrong, where, and what to do.
        metadata: Values of the evaluation's metadata, by name: numbers and strings.
        link: Address of the check in the UI; empty without an address of the UI.
        run_id: Id of the failed run behind it; empty if there is none.
        run_link: Its address in the UI.
    """

    asset: str
    check: str
    passed: bool
    severity: str
    description: str
    metadata: Mapping[str, object] = field(default_factory=dict)
    link: str = ""
    run_id: str = ""
    run_link: str = ""

    def links(self) -> dict[str, str]:
        """Return the links that there are, by what they lead to."""
        found = {"check": self.link, "failed run": self.run_link}
        return {name: link for name, link in found.items() if link}

    def without_links(self) -> CheckEvent:
        """Return the event without links."""
        return replace(self, link="", run_link="")

    def __str__(self) -> str:
        verdict = "recovered" if self.passed else f"fails ({self.severity})"
        text = f"{self.asset}: check {self.check} {verdict}. {self.description}"
        return " ".join((text, *self.links().values()))


OnCheck = Callable[[CheckEvent], object]


def alert_sensor(
    on_check: OnCheck,
    members: Sequence[Member],
    lakehouse: Lakehouse,
    options: RunOptions,
    clock: Clock,
) -> SensorDefinition:
    """Return the sensor that calls `on_check` once per change of a check of these transforms.

    It watches all checks of their datasets and sources.

    If `on_check` raises, the exception is logged, and the next tick calls it again with the
    latest evaluation; alerts of other checks are delayed only if the tick took 20 seconds. The
    cursor records the reported levels: after a reset, failing checks are reported again.
    """

    def arguments(group: Group) -> dict[str, Any]:
        return {
            "name": group.name,
            "evaluation_fn": lambda context: _evaluate(on_check, group, context, clock),
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


def _evaluate(
    on_check: OnCheck, group: Group, context: SensorEvaluationContext, clock: Clock
) -> SensorResult:
    ends = clock() + timedelta(seconds=TICK_SECONDS)
    reported = _reported_levels(context.cursor)
    sent, failed = 0, 0
    for key in _check_keys(group.transforms_in(context.repository_def)):
        latest = _latest(context.instance, key)
        if latest is None:
            continue
        name = f"{key.asset_key.to_user_string()}:{key.name}"
        before = reported.get(name, _OK)
        level = _OK if latest.passed else latest.severity.value
        if level == before:
            continue
        if clock() >= ends:
            failed += 1
            continue
        event = event_of(latest, before)
        # Broad on purpose: user code may raise anything, and it is logged.
        try:
            on_check(event)
        except Exception:
            context.log.exception("on_check failed for %s; the next tick tries again.", name)
            failed += 1
            continue
        sent += 1
        reported[name] = level
    skip = f"{sent} sent, {failed} to be retried." if sent or failed else "No check changed."
    return SensorResult(skip_reason=SkipReason(skip), cursor=_cursor(reported))


def _check_keys(transforms: Sequence[Transform]) -> list[AssetCheckKey]:
    """Return the keys of all checks of sources and datasets."""
    return [
        *dict.fromkeys(
            key
            for transform in transforms
            if transform.source.stream_enabled
            for key in (*source_check_keys(transform.source), audit_check_key(transform.source))
        ),
        *(
            key
            for transform in transforms
            for dataset in transform.outputs.values()
            for key in checks_of_dataset(transform, dataset)
        ),
    ]


def _latest(instance: DagsterInstance, key: AssetCheckKey) -> AssetCheckEvaluation | None:
    """Return the latest evaluation; None if there is none, or a run is about to evaluate it."""
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record is not None and record.event else None
    facts = event.event_specific_data if event is not None else None
    return facts if isinstance(facts, AssetCheckEvaluation) else None


def event_of(latest: AssetCheckEvaluation, before: str) -> CheckEvent:
    """Return the event of an evaluation, given the level that was told before."""
    return CheckEvent(
        asset=latest.asset_key.to_user_string(),
        check=latest.check_name,
        passed=latest.passed,
        severity=before if latest.passed else latest.severity.value,
        description=latest.description or "",
        metadata={key: entry.value for key, entry in latest.metadata.items()},
    )


def _reported_levels(cursor: str | None) -> dict[str, str]:
    try:
        found = json.loads(cursor or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: level for key, level in found.items() if isinstance(level, str)}


def _cursor(reported: Mapping[str, str]) -> str:
    failing = {key: level for key, level in reported.items() if level != _OK}
    return json.dumps(failing, sort_keys=True)


class _SlackClient(Protocol):
    def chat_postMessage(self, *, channel: str, text: str) -> object: ...  # noqa: N802 - Slack's


def slack_alert(token: str | EnvVar, channel: str) -> OnCheck:
    """Return an `on_check` function that posts each event to a Slack channel.

    Needs the extra `datazone-dagster[slack]`.

    Args:
        token: Bot token (`xoxb-...`) with the scope `chat:write`, preferably as
            `EnvVar("SLACK_BOT_TOKEN")`, which is resolved when an event is posted.
        channel: Name of the channel, such as `"#data-alerts"`.

    Returns:
        A function for `build_definitions(on_check=...)`. A failed post raises an exception of
        the Slack client, and the event is posted again at the next tick.

    Raises:
        DefinitionError: dagster-slack is not installed.

    Example:
        ```python
        build_definitions(
            [orders], on_check=slack_alert(EnvVar("SLACK_BOT_TOKEN"), "#data-alerts")
        )
        ```
    """
    try:
        dagster_slack = importlib.import_module("dagster_slack")
    except ImportError as error:
        raise DefinitionError(
            "slack_alert: dagster-slack is not installed.",
            hint="Install it: pip install 'datazone-dagster[slack]'.",
        ) from error

    def post(event: CheckEvent) -> None:
        secret = token.get_value() if isinstance(token, EnvVar) else token
        client = cast("_SlackClient", dagster_slack.SlackResource(token=secret).get_client())
        client.chat_postMessage(channel=channel, text=slack_text(event))

    return post


def slack_text(event: CheckEvent) -> str:
    """Return the event as a one-line message, with Slack's control characters escaped."""
    sign = ":white_check_mark:" if event.passed else ":rotating_light:"
    if not event.passed and event.severity == "WARN":
        sign = ":warning:"
    text = str(event)[:3_000].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{sign} {text}"
