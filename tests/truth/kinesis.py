"""A Kinesis stream in memory that delivers the changes of a table in disorder, and some twice."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.shard import (
    IteratorStart,
    Shard,
    StartAt,
    StreamDescription,
    joined_parents,
)
from datazone_dagster.source.kinesis_wire import VIEW_TYPE, parse_kinesis_page
from tests.truth.reference import Change, Item

ARN = "arn:aws:kinesis:eu-west-1:000000000000:stream/changes/2024-01-01T00:00:00.000"


@dataclass
class _Contents:
    shard: Shard
    records: list[tuple[int, bytes]] = field(default_factory=list)


class KinesisInMemory:
    """`StreamClient` of a Kinesis stream whose deliveries a test decides.

    Args:
        clock: Clock of the change times, which a test has to move between changes.
        page_records: Number of records in a full page.
    """

    table_name = "orders"

    def __init__(self, clock: Callable[[], datetime], page_records: int) -> None:
        self.changes: list[Change] = []
        self.undelivered: list[bytes] = []
        self._clock = clock
        self._page_records = page_records
        self._items: dict[str, Item] = {}
        self._shards: dict[str, _Contents] = {}
        self._number = 10**20
        self._add_shard()

    # -- the table -----------------------------------------------------------------------

    def write(self, key: str, written: Item | str) -> None:
        """Put or delete an item; its change waits to be delivered."""
        old = self._items.pop(key, None)
        new = None if isinstance(written, str) else {"id": {"S": key}, **written}
        if new is not None:
            self._items[key] = new
        if new == old:
            return
        time = self._clock()
        microseconds = round(time.timestamp() * 1_000_000)
        is_ttl = written == "expire"
        whole = time.replace(microsecond=0)
        self.changes.append(Change(microseconds, key, new, old, whole, is_ttl))
        images = {"NewImage": new, "OldImage": old}
        record = {
            "awsRegion": "eu-west-1",
            "eventID": f"event-{len(self.changes)}",
            "eventName": "INSERT" if old is None else "REMOVE" if new is None else "MODIFY",
            "userIdentity": (
                {"type": "Service", "principalId": "dynamodb.amazonaws.com"} if is_ttl else None
            ),
            "recordFormat": "application/json",
            "tableName": self.table_name,
            "eventSource": "aws:dynamodb",
            "dynamodb": {
                "ApproximateCreationDateTime": microseconds,
                "ApproximateCreationDateTimePrecision": "MICROSECOND",
                "Keys": {"id": {"S": key}},
                **{name: _sent(image) for name, image in images.items() if image is not None},
                "SizeBytes": 100,
            },
        }
        self.undelivered.append(json.dumps(record).encode())

    # -- the stream ----------------------------------------------------------------------

    def deliver(self, records: Iterable[tuple[bytes, int]]) -> None:
        """Deliver records, each to an open shard."""
        for data, index in records:
            shards = self._open()
            shards[index % len(shards)].records.append((self._next(), data))

    def split(self, index: int) -> None:
        """Close an open shard; two children follow."""
        parent = self._close(index)
        self._add_shard(parent)
        self._add_shard(parent)

    def merge(self) -> None:
        """Close two open shards; one child follows both."""
        if len(self._open()) > 1:
            self._add_shard(joined_parents(self._close(0), self._close(0)))

    def seen_by_another_process(self) -> KinesisInMemory:
        """Return another client of the stream: what a process knows goes with its client."""
        return copy.copy(self)

    def _open(self) -> list[_Contents]:
        return [one for one in self._shards.values() if one.shard.is_open]

    def _add_shard(self, parents: str | None = None) -> None:
        shard = Shard(f"shardId-{len(self._shards):012d}", parents)
        self._shards[shard.shard_id] = _Contents(shard)

    def _close(self, index: int) -> str:
        contents = self._open()[index % len(self._open())]
        contents.shard = replace(contents.shard, ending_sequence_number=self._next())
        return contents.shard.shard_id

    def _next(self) -> int:
        self._number += 7
        return self._number

    # -- StreamClient --------------------------------------------------------------------

    def stream_arns(self) -> tuple[str, ...]:
        """See `StreamClient`."""
        return (ARN,)

    def describe(self, stream_arn: str) -> StreamDescription:
        """See `StreamClient`."""
        shards = tuple(one.shard for one in self._shards.values())
        return StreamDescription(
            stream_arn,
            VIEW_TYPE,
            enabled=True,
            shards=shards,
            served_at=self._clock(),
            retention=timedelta(days=365),
        )

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """See `StreamClient`."""
        records = self._shards[shard_id].records
        after = start.sequence_number or 0
        if start.at is StartAt.LATEST:
            after = records[-1][0] if records else 0
        return json.dumps([shard_id, after])

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """See `StreamClient`."""
        shard_id, after = json.loads(shard_iterator)
        contents = self._shards[shard_id]
        rest = [one for one in contents.records if one[0] > after]
        page = rest[: self._page_records]
        is_end = len(page) == len(rest) and not contents.shard.is_open
        body = {
            "Records": [
                {
                    "SequenceNumber": str(number),
                    "Data": base64.b64encode(data).decode(),
                    "ApproximateArrivalTimestamp": self._clock().timestamp(),
                    "PartitionKey": "p",
                }
                for number, data in page
            ],
            "NextShardIterator": (
                None if is_end else json.dumps([shard_id, page[-1][0] if page else after])
            ),
            "MillisBehindLatest": 0 if len(page) == len(rest) else 1000,
        }
        return parse_kinesis_page(json.dumps(body).encode(), self.table_name)


def _sent(image: Mapping[str, Any]) -> dict[str, Any]:
    """Encode binary values in base64 again, as DynamoDB does for Kinesis."""
    return {name: _sent_value(typed) for name, typed in image.items()}


def _sent_value(typed: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, inner),) = typed.items()
    if kind == "B":
        return {kind: base64.b64encode(inner.encode()).decode()}
    if kind == "BS":
        return {kind: [base64.b64encode(one.encode()).decode() for one in inner]}
    if kind == "L":
        return {kind: [_sent_value(one) for one in inner]}
    return {kind: _sent(inner)} if kind == "M" else dict(typed)
