"""One change of the change log, for people and scripts that watch it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

Item = dict[str, Any]
"""Attributes in DynamoDB JSON: `{"id": {"S": "a"}}`."""


@dataclass(frozen=True, slots=True)
class LandedChange:
    """A change as it landed, with the masks of today.

    Args:
        batch: Batch of the change log.
        shard_id: Shard of the stream.
        event_id: Id of the stream record; None for rows of a snapshot and malformed records.
        event_name: INSERT, MODIFY, REMOVE, or SNAPSHOT; None for a malformed record.
        event_time: Time of the change, cut to the second by the service.
        sequence_number: Sequence number; None for rows of a snapshot.
        by_ttl: Whether DynamoDB deleted the item because its time to live had passed.
        keys: Key of the item; None for a malformed record.
        old: The item before; None if it was absent, or the stream has no old images.
        new: The item after; None if it is deleted, or the stream has no new images.
        malformed: Why the record can't be parsed; None if it can.
        hidden: Whether values are hidden here that the change log shows: the change landed before
            a mask of today covered them.
    """

    batch: int
    shard_id: str
    event_id: str | None
    event_name: str | None
    event_time: datetime | None
    sequence_number: str | None
    by_ttl: bool
    keys: Item | None
    old: Item | None
    new: Item | None
    malformed: str | None
    hidden: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the change as values of JSON, but for its time."""
        return asdict(self)
