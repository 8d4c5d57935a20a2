"""Listings of streams and shards, as a process keeps them from one drain to the next.

The calls that list are limited: five ListStreams a second for the account, ten DescribeStream. A
tick that listens reads every second, but lists as often as ticks do, every five seconds. An older
listing is no danger: what it says of a shard is confirmed by reading the shard, and children that
it lacks are found in the next one. It is used again only after a drain that met nothing but plain
pages. How much of a large stream is listed each time, `shard_listing` says.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from weakref import WeakKeyDictionary

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.shard_listing import ListingState, ShardListing
from datazone_dagster.drain.stream_choice import Listing, list_streams, stream_to_read
from datazone_dagster.errors import ShardNotFoundError
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import ListsInParts, StreamClient
from datazone_dagster.model.shard import StreamDescription, service_arn

LISTED_FOR_SECONDS = 4.5
"""Time for which a listing is used again."""


@dataclass(slots=True)
class _Listed:
    at_seconds: float
    at: datetime
    listing: Listing
    stream: StreamDescription | None = None

    def is_recent(self, seconds: float, here: datetime) -> bool:
        """Return whether it is of the last seconds by both clocks of this machine.

        The monotonic one stands still while a machine sleeps. What it counts from the last answer
        is the time of the service no more then: another answer has to tell it.
        """
        passed_seconds = abs((here - self.at).total_seconds())
        return max(seconds - self.at_seconds, passed_seconds) < LISTED_FOR_SECONDS


_listed: WeakKeyDictionary[StreamClient, _Listed] = WeakKeyDictionary()
_parts: WeakKeyDictionary[StreamClient, ListingState] = WeakKeyDictionary()


class RecentListing:
    """Streams and shards that a client lists.

    Args:
        client: Client of the stream.
        recent: Whether a listing of the last seconds will do.
        here: Time by the clock of this machine.
        logger: Logger of warnings.
        unknown_shards: Shards that the service did not know when others read them.
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        client: StreamClient,
        *,
        recent: bool,
        here: datetime,
        logger: logging.Logger,
        unknown_shards: Collection[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._now: datetime | None = None
        self._logger = logger
        self._unknown_shards = unknown_shards
        self._seconds = monotonic()
        self._is_whole = True
        found = _listed.pop(client, None)
        if not recent or found is None or not found.is_recent(self._seconds, here):
            found = _Listed(self._seconds, here, list_streams(client))
        self._found = found

    @property
    def streams(self) -> Listing:
        """Streams of the table."""
        return self._found.listing

    def stream(self, checkpoint: Checkpoint, now: datetime) -> StreamDescription:
        """Return the stream to read, with its shards as far as they are known: see `is_whole`.

        Args:
            checkpoint: Checkpoint of everything landed so far.
            now: Start of the drain by the clock of the service.
        """
        self._now = now
        if self._found.stream is None:
            self._found.stream = stream_to_read(
                lambda stream_arn: self._described(stream_arn, checkpoint, now),
                self._found.listing,
                checkpoint,
            )
        return self._found.stream

    @property
    def is_whole(self) -> bool:
        """Whether the stream can be read: the first listing of its shards has come to its end."""
        return self._is_whole

    def anew(self) -> StreamDescription:
        """Return the stream as listed now, all pages of it."""
        stream = self._found.stream
        assert stream is not None, "a drain has read it"
        _parts.pop(self._client, None)
        if stream.listed_at in (None, self._now):
            return stream
        described = self._client.describe(service_arn(stream.stream_arn))
        return replace(described, stream_arn=stream.stream_arn)

    def learn(self, outcomes: Iterable[ShardOutcome]) -> None:
        """Keep the listing for the next drain, unless a read has found something else."""
        outcomes = list(outcomes)
        if not any(one.ended or one.error or one.gap or one.older for one in outcomes):
            _listed[self._client] = self._found
        state = _parts.get(self._client)
        if state is not None and any(
            one.gap or one.older or one.vanished or isinstance(one.error, ShardNotFoundError)
            for one in outcomes
        ):
            _parts[self._client] = replace(state, is_doubted=True)

    def _described(
        self, stream_arn: str, checkpoint: Checkpoint, now: datetime
    ) -> StreamDescription:
        if not isinstance(self._client, ListsInParts):
            return replace(self._client.describe(service_arn(stream_arn)), stream_arn=stream_arn)
        state = _parts.get(self._client)
        if state is not None and state.view.stream.stream_arn != stream_arn:
            state = None
        shards = ShardListing(
            self._client,
            stream_arn,
            checkpoint,
            state,
            now=now,
            seconds=self._seconds,
            logger=self._logger,
            unknown_shards=self._unknown_shards,
        )
        try:
            shards.look()
        finally:
            _parts[self._client] = shards.state
        self._is_whole = shards.is_usable
        return shards.state.view.described()
