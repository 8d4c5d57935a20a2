"""The seams: what the flow asks of the rooms that do IO."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Protocol, runtime_checkable

from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.shard import IteratorStart, StreamDescription

Clock = Callable[[], datetime]
"""Returns the time now, timezone aware."""


def utc_now() -> datetime:
    """The time now, in UTC: the clock where no other is given."""
    return datetime.now(timezone.utc)


class StreamClient(Protocol):
    """Reads the streams of one DynamoDB table. Safe to call from several threads.

    Every method raises `SourceError` subclasses only. Throttling and 5xx answers are retried
    inside; expired iterators, trimmed data and vanished shards are not: they are raised as
    `ExpiredIteratorError`, `TrimmedDataError` and `ShardNotFoundError`.
    """

    def stream_arns(self) -> tuple[str, ...]:
        """ARNs of the table's streams that can still be read, oldest first, the current last.

        A disabled stream stays readable for 24 hours.

        Raises:
            TableNotFoundError: There is no such table.
            StreamDisabledError: The table never had a stream that is still readable.
        """
        ...

    def describe(self, stream_arn: str) -> StreamDescription:
        """All shards of a stream, every page.

        Raises:
            ViewTypeError: The stream carries no new images.
        """
        ...

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """A shard iterator; it lives 15 minutes."""
        ...

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """The next page of a shard: at most 1,000 records or 1 MB."""
        ...


Answer = Callable[[], RecordsPage]
"""Parses what GetRecords answered, or raises a `SourceError` if it can't be used."""


@runtime_checkable
class ParsesLater(Protocol):
    """A stream client that can leave parsing to its caller.

    Calls are made by many threads, for they wait; of parsing, which is CPU work under Python's
    lock, one thread at a time gets more done than many.
    """

    def ask_for_records(self, shard_iterator: str) -> Answer:
        """As `StreamClient.get_records`, with the page not parsed yet."""
        ...
