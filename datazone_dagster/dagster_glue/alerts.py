"""Alerts: your function is called when a check of ours fails, gets worse or better, or recovers.

Open-source Dagster shows a failed check and tells nobody. This sensor does.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

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

from datazone_dagster.dagster_glue.names import ALERT_SENSOR
from datazone_dagster.errors import DefinitionError

INTERVAL_SECONDS = 10

_OK = "OK"


@dataclass(frozen=True, slots=True)
class CheckEvent:
    """A check that changed.

    Args:
        asset: The asset's key, its parts joined by `/`.
        check: `lag`, `schema`, `quarantine`, `complete` or `stream_health`.
        passed: False when it fails, True when it recovers.
        severity: `"WARN"` or `"ERROR"`; of a recovered check, the severity that it had.
        description: What the check says.
        metadata: The numbers and texts of the evaluation.
    """

    asset: str
    check: str
    passed: bool
    severity: str
    description: str
    metadata: Mapping[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        verdict = "recovered" if self.passed else f"fails ({self.severity})"
        return f"{self.asset}: check {self.check} {verdict}. {self.description}"


OnCheck = Callable[[CheckEvent], object]


def alert_sensor(on_check: OnCheck, keys: Sequence[AssetCheckKey]) -> SensorDefinition:
    """The sensor that calls `on_check` once per change of one of these checks.

    A function that raises is logged and called again at the next tick, with what the check
    says then; the alerts of other checks go out meanwhile. What was told is in the cursor:
    after a reset, checks that fail are told once more.
    """

    def evaluate(context: SensorEvaluationContext) -> SensorResult:
        told = _told(context.cursor)
        sent, failed = 0, 0
        for key in keys:
            latest = _latest(context.instance, key)
            if latest is None:
                continue
            name = f"{key.asset_key.to_user_string()}:{key.name}"
            before = told.get(name, _OK)
            level = _OK if latest.passed else latest.severity.value
            if level == before:
                continue
            event = _event(latest, before)
            # Broad on purpose: it is foreign code, and what it raises is logged.
            try:
                on_check(event)
            except Exception:
                context.log.exception("on_check failed for %s; it is called again.", name)
                failed += 1
                continue
            sent += 1
            told[name] = level
        skip = f"{sent} sent, {failed} to be sent again." if sent or failed else "No check changed."
        return SensorResult(skip_reason=SkipReason(skip), cursor=_cursor(told))

    return SensorDefinition(
        name=ALERT_SENSOR,
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=DefaultSensorStatus.RUNNING,
        description="Calls your function when a check of a stream or a dataset fails, changes "
        "its severity or recovers.",
    )


def _latest(instance: DagsterInstance, key: AssetCheckKey) -> AssetCheckEvaluation | None:
    """The latest evaluation; None while a run that will evaluate the check is under way."""
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record is not None and record.event else None
    facts = event.event_specific_data if event is not None else None
    return facts if isinstance(facts, AssetCheckEvaluation) else None


def _event(latest: AssetCheckEvaluation, before: str) -> CheckEvent:
    return CheckEvent(
        asset=latest.asset_key.to_user_string(),
        check=latest.check_name,
        passed=latest.passed,
        severity=before if latest.passed else latest.severity.value,
        description=latest.description or "",
        metadata={key: entry.value for key, entry in latest.metadata.items()},
    )


def _told(cursor: str | None) -> dict[str, str]:
    try:
        found = json.loads(cursor or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: level for key, level in found.items() if isinstance(level, str)}


def _cursor(told: Mapping[str, str]) -> str:
    return json.dumps({key: level for key, level in told.items() if level != _OK}, sort_keys=True)


class _SlackClient(Protocol):
    def chat_postMessage(self, *, channel: str, text: str) -> object: ...  # noqa: N802 - Slack's


def slack_alert(token: str | EnvVar, channel: str) -> OnCheck:
    """An `on_check` that posts to a Slack channel; needs `datazone-dagster[slack]`.

    Args:
        token: A bot token (`xoxb-...`) with `chat:write`, best as `EnvVar("SLACK_BOT_TOKEN")`.
        channel: Such as `"#data-alerts"`.

    Raises:
        DefinitionError: dagster-slack is not installed.
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
    """The message: what changed, as one line, with Slack's control characters escaped."""
    sign = ":white_check_mark:" if event.passed else ":rotating_light:"
    if not event.passed and event.severity == "WARN":
        sign = ":warning:"
    text = str(event)[:3_000].replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return f"{sign} {text}"
