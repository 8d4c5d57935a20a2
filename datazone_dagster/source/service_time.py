"""Time of the service: the Date header of its responses. The local clock never stands in for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any


def served_at(answer: Mapping[str, Any]) -> datetime | None:
    """Return the time in the Date header of a response; None without a valid one."""
    header = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        time = parsedate_to_datetime(header)
    except (TypeError, ValueError):
        return None
    return time.replace(tzinfo=time.tzinfo or timezone.utc)
