"""Listings of streams and shards that are a few seconds old, for a tick that listens.

The calls that list are limited: five ListStreams a second for the account, ten DescribeStream. A
tick that listens reads every second, but lists as often as ticks do, every five seconds. An older
listing is no danger: what it says of a shard is confirmed by reading the shard, and children that
it lacks are found in the next one. It is kept only after a drain that met nothing but plain pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from datazone_dagster.drain.stream_choice import Listing, list_streams, stream_to_read
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.shard import StreamDescription

LISTED_FOR_SECONDS = 4.5
"""Time for which a listing is used again."""


@dataclass(slots=True)
class _Listed:
    at_seconds: float
    listing: Listing
    stream: StreamDescription | None = None


_listed: WeakKeyDictionary[StreamClient, _Listed] = WeakKeyDictionary()


class RecentListing:
    """Streams and shards that a client lists.

    Args:
        client: Client of the stream.
        recent: Whether a listing of the last seconds will do.
        monotonic: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        client: StreamClient,
        *,
        recent: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        now = monotonic()
        found = _listed.pop(client, None)
        if not recent or found is None or now - found.at_seconds >= LISTED_FOR_SECONDS:
            found = _Listed(now, list_streams(client))
        self._found = found

    @property
    def streams(self) -> Listing:
        """Streams of the table."""
        return self._found.listing

    def stream(self, checkpoint: Checkpoint) -> StreamDescription:
        """Return the stream to read, with its shards."""
        if self._found.stream is None:
            self._found.stream = stream_to_read(self._client, self._found.listing, checkpoint)
        return self._found.stream

    def keep(self) -> None:
        """Keep the listing for the next drain: this one found nothing that contradicts it."""
        _listed[self._client] = self._found
