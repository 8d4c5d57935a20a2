"""Shard iterators: opaque to clients, readable to the server, worthless after 15 minutes."""

from __future__ import annotations

import base64
import binascii
import uuid
import zlib

import msgspec

from datazone_dagster.local.service_errors import ServiceError, validation

LIFETIME_SECONDS = 15 * 60


class ShardPosition(msgspec.Struct, frozen=True, array_like=True):
    """Where an iterator stands.

    Args:
        shard: The shard's number in the store.
        after: The next record is the first with a greater sequence number.
        issued_at: Server time in seconds since 1970.
        reader: The same for all iterators that come from one GetShardIterator.
    """

    shard: int
    after: str
    issued_at: float
    reader: str

    def moved(self, after: str, now: float) -> ShardPosition:
        """The iterator that follows in the same reader."""
        return ShardPosition(self.shard, after, now, self.reader)


def new_reader() -> str:
    """A name for one chain of iterators."""
    return uuid.uuid4().hex[:12]


def written(stream_arn: str, position: ShardPosition) -> str:
    """The iterator's text, of the shape that the service gives."""
    packed = msgspec.msgpack.encode(position)
    packed += zlib.crc32(packed).to_bytes(4, "big")
    return f"{stream_arn}|1|{base64.b64encode(packed).decode()}"


def read(iterator: str, now: float) -> ShardPosition:
    """The position behind an iterator's text.

    Raises:
        ServiceError: `ValidationException` for a text that is not ours,
            `ExpiredIteratorException` after 15 minutes of server time.
    """
    try:
        packed = base64.b64decode(iterator.rsplit("|", 1)[-1], validate=True)
        body, check = packed[:-4], packed[-4:]
        if zlib.crc32(body).to_bytes(4, "big") != check:
            raise validation("Invalid ShardIterator")
        position = msgspec.msgpack.decode(body, type=ShardPosition)
    except (binascii.Error, msgspec.MsgspecError, ValueError):
        raise validation("Invalid ShardIterator") from None
    if now - position.issued_at > LIFETIME_SECONDS:
        raise ServiceError("ExpiredIteratorException", "Shard iterator has expired")
    return position
