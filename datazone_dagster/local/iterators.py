"""Shard iterators: opaque to clients, readable by the server, expired after 15 minutes."""

from __future__ import annotations

import base64
import binascii
import uuid
import zlib

import msgspec

from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.model.service_limits import ITERATOR_LIFETIME_SECONDS


class ShardPosition(msgspec.Struct, frozen=True, array_like=True):
    """Position of an iterator in its shard.

    Args:
        shard: Number of the shard in the store.
        after: Sequence number; the next record is the first one with a greater number.
        issued_at: Server time in seconds since 1970.
        reader: Id shared by all iterators that come from one GetShardIterator call.
    """

    shard: int
    after: str
    issued_at: float
    reader: str

    def moved(self, after: str, now: float) -> ShardPosition:
        """Return the next position of the same reader."""
        return ShardPosition(self.shard, after, now, self.reader)


def new_reader() -> str:
    """Return a new id for one chain of iterators."""
    return uuid.uuid4().hex[:12]


def written(stream_arn: str, position: ShardPosition) -> str:
    """Return the iterator's text, in the format of the service."""
    packed = msgspec.msgpack.encode(position)
    packed += zlib.crc32(packed).to_bytes(4, "big")
    return f"{stream_arn}|1|{base64.b64encode(packed).decode()}"


def read(
    iterator: str, now: float, lifetime_seconds: float = ITERATOR_LIFETIME_SECONDS
) -> ShardPosition:
    """Return the position encoded in an iterator's text.

    Raises:
        ServiceError: `ValidationException` for a text that this server did not issue,
            `ExpiredIteratorException` after its lifetime, 15 minutes of server time by default.
    """
    try:
        packed = base64.b64decode(iterator.rsplit("|", 1)[-1], validate=True)
        body, check = packed[:-4], packed[-4:]
        if zlib.crc32(body).to_bytes(4, "big") != check:
            raise validation("Invalid ShardIterator")
        position = msgspec.msgpack.decode(body, type=ShardPosition)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise validation("Invalid ShardIterator") from None
    if now - position.issued_at > lifetime_seconds:
        raise ServiceError("ExpiredIteratorException", "Shard iterator has expired")
    return position
