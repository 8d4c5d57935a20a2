"""Time of the service: the Date header of its responses. The local clock never stands in for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any


def served_at(answer: Mapping[str, Any]) -> datetime | None:
    """Return the time in the Date header of a response; None without a valid one."""
    header = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        at = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return at.replace(tzinfo=at.tzinfo or timezone.utc)


class LastAnswer:
    """Time of the last answer of a service. Its header is parsed only when somebody asks."""

    def __init__(self) -> None:
        self._last: tuple[Mapping[str, Any], float] | None = None

    def note(self, answer: Mapping[str, Any]) -> None:
        """Keep the headers of an answer that has just arrived."""
        metadata = answer.get("ResponseMetadata", {})
        if "date" in metadata.get("HTTPHeaders", {}):
            self._last = {"ResponseMetadata": metadata}, time.monotonic()

    def time(self) -> tuple[datetime, float] | None:
        """See `model.protocols.TellsTime`."""
        if self._last is None:
            return None
        answer, arrived_seconds = self._last
        at = served_at(answer)
        return None if at is None else (at, arrived_seconds)
