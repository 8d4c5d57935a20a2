"""Listings of a scripted stream: all shards, pages of them, the children of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from datazone_dagster.errors import ShardNotFoundError, ViewTypeError
from datazone_dagster.model.service_limits import SHARDS_PER_PAGE
from datazone_dagster.model.shard import Shard, ShardPage, StreamDescription
from datazone_dagster.testing.scripted_faults import FaultFunction
from datazone_dagster.testing.scripted_lock import LOCK
from datazone_dagster.testing.scripted_record import NEW_IMAGE_VIEWS
from datazone_dagster.testing.scripted_shards import ScriptedShards


class ScriptedListing:
    """What `ScriptedStream` answers to DescribeStream."""

    _streams: dict[str, ScriptedShards]
    _hidden: set[str]
    _clock: Callable[[], datetime]
    _faults: FaultFunction | None
    calls: dict[str, int]

    shards_per_page = SHARDS_PER_PAGE
    """Number of shards in a full page of a listing, for tests that set a smaller one."""

    def hide(self, shard_id: str) -> None:
        """Leave a shard out of the listing, as DescribeStream may for a while."""
        self._hidden.add(shard_id)

    def show_all(self) -> None:
        """List every shard again."""
        self._hidden.clear()

    def describe(self, stream_arn: str) -> StreamDescription:
        """See `StreamClient`."""
        page = self.describe_page(stream_arn, None)
        shards = list(page.stream.shards)
        while page.last is not None:
            page = self.describe_page(stream_arn, page.last)
            shards += page.stream.shards
        return replace(page.stream, shards=tuple(shards))

    def describe_page(self, stream_arn: str, after: str | None) -> ShardPage:
        """See `ListsInParts`."""
        self._maybe_fail("DescribeStream", "")
        with LOCK:
            stream = self._readable(stream_arn)
            if stream.view_type not in NEW_IMAGE_VIEWS:
                raise ViewTypeError(
                    f"Stream {stream_arn} has view type {stream.view_type}: no new images."
                )
            shards = [one for one in self._shown(stream) if after is None or one.shard_id > after]
            page = tuple(shards[: self.shards_per_page])
            status = (stream.view_type, stream.is_enabled)
            described = StreamDescription(stream_arn, *status, page, served_at=self._clock())
            return ShardPage(described, page[-1].shard_id if len(page) < len(shards) else None)

    def children(self, stream_arn: str, shard_id: str) -> tuple[Shard, ...] | None:
        """See `ListsInParts`."""
        self._maybe_fail("DescribeStream", "")
        with LOCK:
            shown = self._shown(self._readable(stream_arn))
            return tuple(one for one in shown if one.parent_shard_id == shard_id)

    def told_time(self) -> tuple[datetime, float] | None:
        """See `TellsTime`."""
        return self._clock(), time.monotonic()

    def _maybe_fail(self, operation: str, shard_id: str) -> None:
        with LOCK:
            self.calls[operation] = count = self.calls.get(operation, 0) + 1
        error = self._faults and self._faults(operation, shard_id, count)
        if error:
            raise error

    def _readable(self, stream_arn: str) -> ScriptedShards:
        stream = self._streams.get(stream_arn)
        if stream is None or not stream.is_readable():
            raise ShardNotFoundError(f"Stream {stream_arn} does not exist.")
        return stream

    def _shown(self, stream: ScriptedShards) -> list[Shard]:
        listed = [shard.shard for shard in stream.listed()]
        return [shard for shard in listed if shard.shard_id not in self._hidden]
