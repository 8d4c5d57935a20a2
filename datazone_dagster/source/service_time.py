"""Time of the service: the Date header of its responses. The local clock never stands in for it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from weakref import WeakKeyDictionary


def served_at(answer: Mapping[str, Any]) -> datetime | None:
    """Return the time in the Date header of a response; None without a valid one."""
    header = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        at = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return at.replace(tzinfo=at.tzinfo or timezone.utc)


class _LastAnswer:
    """Last answer of a service, an error too. Its header is parsed only when somebody asks.

    An answer of status 500 and more may be that of a gateway before it, by another clock.
    """

    def __init__(self) -> None:
        self.last: tuple[float, Mapping[str, Any]] | None = None

    def note(self, parsed: Mapping[str, Any], **_: object) -> None:
        """Keep the headers of an answer that has just arrived: a handler of botocore's events."""
        metadata = parsed.get("ResponseMetadata", {})
        is_of_service = metadata.get("HTTPStatusCode", 200) < 500
        if is_of_service and "date" in metadata.get("HTTPHeaders", {}):
            self.last = time.monotonic(), {"ResponseMetadata": metadata}


_noted: WeakKeyDictionary[Any, _LastAnswer] = WeakKeyDictionary()


def note_answers(*clients: Any) -> None:
    """Note from now on when these clients of botocore got their last answers."""
    for client in clients:
        if client not in _noted:
            _noted[client] = noted = _LastAnswer()
            service = client.meta.service_model.service_id.hyphenize()
            client.meta.events.register(f"after-call.{service}", noted.note)


def told_by(clients: Iterable[Any]) -> tuple[datetime, float] | None:
    """Return what the last answer to one of the clients tells: see `model.protocols.TellsTime`."""
    found = [noted.last for one in clients if (noted := _noted.get(one)) and noted.last]
    if not found:
        return None
    arrived_seconds, answer = max(found, key=lambda one: one[0])
    at = served_at(answer)
    return None if at is None else (at, arrived_seconds)
