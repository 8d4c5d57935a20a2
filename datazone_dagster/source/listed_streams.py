"""Streams of a table as they were listed, and the table as DescribeTable shows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.source.failures import Call, origin

STREAMS_LISTED_SECONDS = 60.0
"""Time for which streams are not listed again, while the table says that it has the same one.

An account has five ListStreams calls a second. DescribeTable tells each time whether there is a new
stream; an older one that has left the list since is found to be gone when it is read.
"""


@dataclass(frozen=True, slots=True)
class ListedStreams:
    """Streams of a table.

    Args:
        arns: Their ARNs, oldest first, the current one last.
        table: What the table said of itself then.
        at_seconds: Time of the listing, on the monotonic clock.
    """

    arns: tuple[str, ...]
    table: object
    at_seconds: float

    @classmethod
    def of(cls, table: Any, arns: Iterable[str], seconds: float) -> ListedStreams:
        """Return the streams listed just before a table was described."""
        return cls(tuple(arns), _state_of(table), seconds)

    def is_recent(self, seconds: float) -> bool:
        """Return whether they need not be listed again if the table is as it was."""
        return seconds - self.at_seconds < STREAMS_LISTED_SECONDS

    def are_of(self, table: Any) -> bool:
        """Return whether a table is as it was when they were listed."""
        return _state_of(table) == self.table


def _state_of(table: Any) -> object:
    """Return what changes with the streams of a table."""
    names = ("TableId", "CreationDateTime", "LatestStreamArn")
    return is_enabled(table), *(table.get(name) for name in names)


def is_enabled(table: Any) -> bool:
    """Return whether a described table has an enabled stream."""
    enabled: bool = table.get("StreamSpecification", {}).get("StreamEnabled", False)
    return enabled


def identity_of(table: Any, call: Call, *, exists: bool = True) -> SourceIdentity:
    """Return the identity of the table in a DescribeTable response."""
    enabled = is_enabled(table)
    return SourceIdentity(
        table_name=call.table_name,
        region=call.region or "",
        endpoint=origin(call.endpoint_url),
        exists=exists,
        table_arn=table.get("TableArn", ""),
        table_id=table.get("TableId", ""),
        stream_arn=table.get("LatestStreamArn", "") if enabled else "",
    )
