"""Events of checks, and the function that posts them to Slack with a bot token."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

from dagster import AssetCheckEvaluation, EnvVar

from datazone_dagster.errors import DefinitionError


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
