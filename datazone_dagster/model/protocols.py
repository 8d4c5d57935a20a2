"""Protocols between the data flow and the packages that do IO."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol, runtime_checkable

from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.shard import IteratorStart, Shard, ShardPage, StreamDescription
from datazone_dagster.model.source_identity import SourceIdentity

Clock = Callable[[], datetime]
"""Returns the current time, timezone aware."""


def utc_now() -> datetime:
    """Return the current time in UTC: the default clock."""
    return datetime.now(timezone.utc)


class StreamClient(Protocol):
    """Reads the streams of one DynamoDB table. Safe to call from several threads.

    Every method raises `SourceError` subclasses only. Throttling and 5xx answers are retried
    inside; expired iterators, trimmed data and vanished shards are not: they are raised as
    `ExpiredIteratorError`, `TrimmedDataError` and `ShardNotFoundError`.
    """

    def stream_arns(self) -> tuple[str, ...]:
        """Return the ARNs of the table's readable streams: oldest first, the current one last.

        A disabled stream stays readable for 24 hours.

        Raises:
            TableNotFoundError: The table does not exist.
            StreamDisabledError: The table has no stream that is still readable.
        """
        ...

    def describe(self, stream_arn: str) -> StreamDescription:
        """Return all shards of a stream, from every page.

        Raises:
            ViewTypeError: The stream carries no new images.
        """
        ...

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """Return a shard iterator; it is valid for 15 minutes."""
        ...

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """Return the next page of a shard: at most 1,000 records or 1 MB."""
        ...


@runtime_checkable
class KnowsTable(Protocol):
    """A stream client that can say which table it reads."""

    def identity(self) -> SourceIdentity | None:
        """Return the table as of the last `stream_arns`, without a call; None before that."""
        ...


@runtime_checkable
class ListsInParts(Protocol):
    """A stream client that can list a stream page by page, or the children of one shard.

    Each is one call, of which the service allows ten a second for all streams of an account.
    """

    def describe_page(self, stream_arn: str, after: str | None) -> ShardPage:
        """Return the shards after one of them, or the first ones.

        Raises:
            ShardNotFoundError: The service does not know the stream.
            ViewTypeError: The stream carries no new images.
        """
        ...

    def children(self, stream_arn: str, shard_id: str) -> tuple[Shard, ...] | None:
        """Return the children of a shard that are known so far; None: it can't be asked for them.

        Raises:
            ShardNotFoundError: The service does not know the shard, or the stream.
        """
        ...


@runtime_checkable
class TellsTime(Protocol):
    """A stream client whose answers tell the time by the clock of the service."""

    def told_time(self) -> tuple[datetime, float] | None:
        """Return the time in the last answer, and when it came by this process's monotonic clock.

        None: no answer has told it. It costs no call, and errors that the service returned count.
        """
        ...


Answer = Callable[[], RecordsPage]
"""Parses a GetRecords response, or raises a `SourceError` if the response can't be used."""


@runtime_checkable
class ParsesLater(Protocol):
    """A stream client that can leave parsing to its caller.

    Calls mostly wait, so many threads make them. Parsing is CPU work under Python's global lock:
    one thread at a time gets more done than many.
    """

    def ask_for_records(self, shard_iterator: str) -> Answer:
        """Call GetRecords as `StreamClient.get_records` does, but leave the page unparsed."""
        ...
