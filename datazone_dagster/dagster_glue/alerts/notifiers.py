"""Notifiers: functions that send a `CheckEvent` to a webhook, to Slack or through Apprise."""

from __future__ import annotations

import http.client
import importlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError  # its own class before Python 3.11
from threading import Thread
from typing import Any

from dagster import EnvVar

from datazone_dagster.dagster_glue.alerts.alerts import CheckEvent, OnCheck, slack_text
from datazone_dagster.errors import DatazoneError, DefinitionError
from datazone_dagster.text import shown

TIMEOUT_SECONDS = 10.0
WAITS_SECONDS = (0.5, 2.0)
"""Pauses before the second and the third attempt."""

POST_SECONDS = 20.0
"""Longest time for a message with all attempts: a tick has 60 seconds."""

_TEXT_CHARS = 3_000


class NotifyError(DatazoneError):
    """A message could not be sent; the next tick tries again."""


def webhook(
    url: str | EnvVar,
    *,
    headers: Mapping[str, str | EnvVar] | None = None,
    pause: Callable[[float], object] = time.sleep,
) -> OnCheck:
    """Return a function that posts each event as JSON to a URL.

    The JSON has `text` (one line), `asset`, `check`, `passed`, `severity`, `description`,
    `metadata`, `link` and `run_link`. A request that fails is repeated twice; the next tick of the
    sensor tries again after that. A redirect is a failure: it is not followed. No error shows the
    URL, which may hold a secret.

    Args:
        url: The URL, `http` or `https`; `EnvVar("ALERTS_URL")` is resolved when an event is posted.
        headers: Further headers, such as `{"Authorization": EnvVar("ALERTS_TOKEN")}`.
        pause: Waits for some seconds between attempts; for tests.

    Raises:
        DefinitionError: The URL is not one of http or https.
    """
    if isinstance(url, str) and not isinstance(url, EnvVar):
        _check_url(url)

    def post(event: CheckEvent) -> None:
        _post(url, _payload(event), headers or {}, pause)

    return post


def slack(url: str | EnvVar, *, pause: Callable[[float], object] = time.sleep) -> OnCheck:
    """Return a function that posts each event to an incoming webhook of Slack.

    It needs no library. `slack_alert` posts with a bot token instead.

    Args:
        url: URL of the incoming webhook, which is a secret: `EnvVar("SLACK_WEBHOOK_URL")`.
        pause: As for `webhook`.

    Raises:
        DefinitionError: The URL is not one of http or https.
    """
    if isinstance(url, str) and not isinstance(url, EnvVar):
        _check_url(url)

    def post(event: CheckEvent) -> None:
        _post(url, {"text": _slack_text(event)}, {}, pause)

    return post


def apprise(*urls: str | EnvVar) -> OnCheck:
    """Return a function that sends each event to services of Apprise: mail, Teams, PagerDuty...

    Needs the extra `datazone-dagster[apprise]`.

    Args:
        urls: URLs of Apprise, which hold secrets: `EnvVar("ALERTS_APPRISE_URL")`.

    Raises:
        DefinitionError: apprise is not installed, or no URL is given.
    """
    if not urls:
        raise DefinitionError("apprise: no URL is given.", hint='Write apprise(EnvVar("..."))')
    try:
        library: Any = importlib.import_module("apprise")
    except ImportError as error:
        raise DefinitionError(
            "apprise: the library apprise is not installed.",
            hint="Install it: pip install 'datazone-dagster[apprise]'.",
        ) from error

    def send(event: CheckEvent) -> None:
        service = library.Apprise()
        if not all(service.add(_value(url)) for url in urls):
            raise NotifyError("apprise: a URL is not one of its services.")
        title = f"{event.asset}: {event.check} {'recovered' if event.passed else 'fails'}"
        if not service.notify(title=title, body=str(event)[:_TEXT_CHARS]):
            raise NotifyError("apprise: a service did not take the message.")

    return send


def _value(secret: str | EnvVar) -> str:
    # EnvVar is a string, too: that of its name.
    return (secret.get_value() or "") if isinstance(secret, EnvVar) else secret


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise DefinitionError(
            "The URL of a notifier is not one of http or https.",
            hint='Write webhook("https://..."), or webhook(EnvVar("ALERTS_URL")).',
        )


def _payload(event: CheckEvent) -> dict[str, object]:
    return {
        "text": str(event)[:_TEXT_CHARS],
        "asset": event.asset,
        "check": event.check,
        "passed": event.passed,
        "severity": event.severity,
        "description": event.description,
        "metadata": {
            key: value
            for key, value in event.metadata.items()
            if isinstance(value, (bool, int, float, str))
        },
        "link": event.link,
        "run_link": event.run_link,
    }


def _slack_text(event: CheckEvent) -> str:
    links = [f"<{link}|{name}>" for name, link in event.links().items()]
    return " ".join((slack_text(event.without_links()), *links))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Makes a redirect an error: followed, it is a GET elsewhere, with the headers' secrets."""

    def redirect_request(self, *_: object) -> None:
        """Return no request to go on with."""


def _post(
    url: str | EnvVar,
    payload: Mapping[str, object],
    headers: Mapping[str, str | EnvVar],
    pause: Callable[[float], object],
) -> None:
    target = _value(url)
    _check_url(target)
    host = urllib.parse.urlsplit(target).hostname
    request = urllib.request.Request(  # the scheme is checked
        target,
        data=json.dumps(payload).encode(),
        headers={
            "Content-Type": "application/json",
            **{name: _value(value) for name, value in headers.items()},
        },
        method="POST",
    )
    sent: Future[None] = Future()

    def send() -> None:
        try:
            _send(request, host, pause)
        except NotifyError as error:
            sent.set_exception(error)
        else:
            sent.set_result(None)

    # A timeout of urllib is that of one socket operation, for each address of the host.
    Thread(target=send, daemon=True).start()
    try:
        sent.result(POST_SECONDS)
    except NoAnswerError:
        raise _not_taken(host, f"no answer within {POST_SECONDS:g} s") from None


def _send(
    request: urllib.request.Request, host: str | None, pause: Callable[[float], object]
) -> None:
    """Send a message, up to three times; an answer with a status of success is enough."""
    opener = urllib.request.build_opener(_NoRedirect)
    for wait in (*WAITS_SECONDS, None):
        try:
            opener.open(request, timeout=TIMEOUT_SECONDS).close()
        except urllib.error.HTTPError as error:
            problem, passes = f"status {error.code}", error.code in (408, 429) or error.code >= 500
            error.close()
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            problem = shown(f"{type(reason).__name__}")
            passes = not isinstance(error, http.client.InvalidURL)
        else:
            return
        if wait is None or not passes:
            raise _not_taken(host, problem) from None
        pause(wait)


def _not_taken(host: str | None, problem: str) -> NotifyError:
    """Return the error without its causes, which quote the URL."""
    return NotifyError(
        f"The message was not taken by {host}: {problem}.",
        safe="The next tick of the sensor tries again.",
    )
