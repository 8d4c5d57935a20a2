"""A DynamoDB stream in memory, moved by the test that holds it."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from datazone_dagster.errors import (
    ExpiredIteratorError,
    ShardNotFoundError,
    TrimmedDataError,
)
from datazone_dagster.local.faults import FaultPlan
from datazone_dagster.model.record import ChangeRecord, MalformedRecord, RecordsPage
from datazone_dagster.model.shard import IteratorStart, Shard, StartAt, StreamDescription
from datazone_dagster.testing.clock import FixedClock
from datazone_dagster.testing.scripted_faults import FaultFunction, faults_of_plan

_FIRST_SEQUENCE = 100 * 10**18

Item = Mapping[str, Any]
"""An item in DynamoDB JSON: `{"orderId": {"S": "1"}}`."""


@dataclass
class _Shard:
    shard: Shard
    entries: list[ChangeRecord | MalformedRecord | None] = field(default_factory=list)
    trimmed: int = 0
    gone: bool = False


class ScriptedStream:
    """A table with a stream, in memory. Implements `model.protocols.StreamClient`.

    Args:
        table_name: Name of the table.
        key: Names of its key attributes.
        shards: Open shards at the start.
        page_records: Records of a full page; small pages make many of them.
        clock: Gives change times, and the age at which iterators expire.
        faults: A fault plan; or a function, called before each operation with its name, shard
            id and how often that operation was called: what it returns is raised.
    """

    def __init__(
        self,
        table_name: str = "orders",
        *,
        key: tuple[str, ...] = ("id",),
        shards: int = 1,
        page_records: int = 1000,
        clock: Callable[[], datetime] | None = None,
        faults: FaultPlan | FaultFunction | None = None,
    ) -> None:
        self.table_name = table_name
        self.items: dict[str, Item] = {}
        self.changes: list[ChangeRecord] = []
        self.calls: dict[str, int] = {}
        self._key = key
        self._page_records = page_records
        self._clock = clock or FixedClock()
        self._sequence = _FIRST_SEQUENCE
        self._step = 0
        self._streams: dict[str, dict[str, _Shard]] = {}
        self._hidden: set[str] = set()
        self._initial_shards = shards
        self._faults: FaultFunction | None = None
        self.faults = faults
        self.replace()

    @property
    def faults(self) -> FaultFunction | None:
        """What strikes the calls; a plan that is set begins to count anew."""
        return self._faults

    @faults.setter
    def faults(self, faults: FaultPlan | FaultFunction | None) -> None:
        if isinstance(faults, FaultPlan):
            faults = faults_of_plan(faults, lambda: list(self._streams[self.stream_arn]))
        self._faults = faults

    @property
    def stream_arn(self) -> str:
        """The current stream."""
        return list(self._streams)[-1]

    def put(self, item: Item) -> None:
        """Write an item. Writing what is there already makes no record, as in the service."""
        name = self._name_of(item)
        old = self.items.get(name)
        if old == item:
            return
        self.items[name] = item
        self._record("INSERT" if old is None else "MODIFY", self._keys_of(item), item, old)

    def delete(self, key: Item, *, ttl: bool = False) -> None:
        """Delete an item; an absent one makes no record."""
        old = self.items.pop(self._name_of(key), None)
        if old is not None:
            self._record("REMOVE", self._keys_of(key), None, old, ttl=ttl)

    def split(self, index: int = 0) -> None:
        """Close an open shard; two children take its keys."""
        self._close(self._open_shards()[index], children=2)

    def roll(self, index: int = 0) -> None:
        """Close an open shard; one child takes its keys."""
        self._close(self._open_shards()[index], children=1)

    def empty_page(self, index: int = 0) -> None:
        """Put an empty page into an open shard."""
        self._open_shards()[index].entries.append(None)

    def rewrite(self, record: ChangeRecord, instead: ChangeRecord) -> None:
        """Let the stream deliver something else in the place of a record."""
        for shards in self._streams.values():
            for shard in shards.values():
                if record in shard.entries:
                    shard.entries[shard.entries.index(record)] = instead

    def malformed(self, raw: bytes, index: int = 0) -> None:
        """Put something that is not a stream record into an open shard."""
        self._open_shards()[index].entries.append(
            MalformedRecord(raw, "not a stream record", self._next_sequence())
        )

    def trim(self) -> None:
        """Lose all records so far, and closed shards with them."""
        for shards in self._streams.values():
            for shard in shards.values():
                shard.trimmed = len(shard.entries)
                shard.gone = not shard.shard.is_open

    def replace(self) -> None:
        """Disable the stream and enable it again: a new ARN, and sequence numbers start anew."""
        for shard in self._open_shards() if self._streams else []:
            shard.shard = replace(shard.shard, ending_sequence_number=self._next_sequence())
        self._sequence = _FIRST_SEQUENCE
        arn = (
            f"arn:aws:dynamodb:eu-west-1:000000000000:table/{self.table_name}/stream/"
            f"{len(self._streams):04d}"
        )
        self._streams[arn] = {}
        for _ in range(self._initial_shards):
            self._add_shard(arn, parent=None)

    def hide(self, shard_id: str) -> None:
        """Leave a shard out of the listing, as DescribeStream may for a while."""
        self._hidden.add(shard_id)

    def show_all(self) -> None:
        """List every shard again."""
        self._hidden.clear()

    def shard_ids(self) -> list[str]:
        """The shards of the current stream that are still listed, oldest first."""
        shards = self._streams[self.stream_arn]
        return [shard_id for shard_id, shard in shards.items() if not shard.gone]

    def shard_index(self, item: Item) -> int:
        """Which of the open shards takes the changes of an item's key."""
        return self._open_shards().index(self._shard_of(self._keys_of(item)))

    # -- StreamClient ------------------------------------------------------------------

    def stream_arns(self) -> tuple[str, ...]:
        """See `StreamClient`."""
        self._maybe_fail("ListStreams", "")
        return tuple(arn for arn in self._streams if arn == self.stream_arn or self._listed(arn))

    def describe(self, stream_arn: str) -> StreamDescription:
        """See `StreamClient`."""
        self._maybe_fail("DescribeStream", "")
        if stream_arn != self.stream_arn and not self._listed(stream_arn):
            raise ShardNotFoundError(f"Stream {stream_arn} does not exist.")
        return StreamDescription(
            stream_arn,
            "NEW_AND_OLD_IMAGES",
            enabled=stream_arn == self.stream_arn,
            shards=tuple(
                shard.shard
                for shard in self._listed(stream_arn)
                if shard.shard.shard_id not in self._hidden
            ),
        )

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """See `StreamClient`."""
        self._maybe_fail("GetShardIterator", shard_id)
        shard = self._shard(stream_arn, shard_id)
        if start.at is StartAt.TRIM_HORIZON:
            at = shard.trimmed
        elif start.at is StartAt.LATEST:
            at = len(shard.entries)
        else:
            assert start.sequence_number is not None
            at = bisect_right(_sequences(shard), start.sequence_number)
            if at < shard.trimmed:
                raise TrimmedDataError(f"The position in shard {shard_id} is trimmed.")
        return json.dumps([stream_arn, shard_id, at, self._clock().timestamp()])

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """See `StreamClient`."""
        stream_arn, shard_id, at, issued_at = json.loads(shard_iterator)
        self._maybe_fail("GetRecords", shard_id)
        shard = self._shard(stream_arn, shard_id)
        if self._clock().timestamp() - issued_at > 15 * 60:
            raise ExpiredIteratorError(f"The iterator of shard {shard_id} has expired.")
        if at < shard.trimmed:
            raise TrimmedDataError(f"The position in shard {shard_id} is trimmed.")
        page: list[ChangeRecord | MalformedRecord] = []
        while at < len(shard.entries) and len(page) < self._page_records:
            entry = shard.entries[at]
            if entry is None and page:
                break
            at += 1
            if entry is None:
                break
            page.append(entry)
        at_end = at >= len(shard.entries) and not shard.shard.is_open
        records = [entry for entry in page if isinstance(entry, ChangeRecord)]
        return RecordsPage(
            records,
            None if at_end else json.dumps([stream_arn, shard_id, at, self._clock().timestamp()]),
            sum(record.size_bytes for record in records),
            [entry for entry in page if isinstance(entry, MalformedRecord)],
        )

    # -- inside ------------------------------------------------------------------------

    def _maybe_fail(self, operation: str, shard_id: str) -> None:
        self.calls[operation] = self.calls.get(operation, 0) + 1
        error = self._faults and self._faults(operation, shard_id, self.calls[operation])
        if error:
            raise error

    def _shard(self, stream_arn: str, shard_id: str) -> _Shard:
        shard = self._streams.get(stream_arn, {}).get(shard_id)
        if shard is None or shard.gone:
            raise ShardNotFoundError(f"Shard {shard_id} of {stream_arn} does not exist.")
        return shard

    def _listed(self, stream_arn: str) -> list[_Shard]:
        return [shard for shard in self._streams.get(stream_arn, {}).values() if not shard.gone]

    def _open_shards(self) -> list[_Shard]:
        return [shard for shard in self._streams[self.stream_arn].values() if shard.shard.is_open]

    def _add_shard(self, stream_arn: str, parent: str | None) -> None:
        number = sum(len(shards) for shards in self._streams.values()) + self._step
        shard_id = f"shardId-{number:020d}-{self._step:08x}"
        self._streams[stream_arn][shard_id] = _Shard(Shard(shard_id, parent, self._next_sequence()))

    def _close(self, shard: _Shard, children: int) -> None:
        shard.shard = replace(shard.shard, ending_sequence_number=self._next_sequence())
        for _ in range(children):
            self._add_shard(self.stream_arn, shard.shard.shard_id)

    def _next_sequence(self) -> int:
        self._step += 1
        # Gaps and growing width, as in the service.
        self._sequence += 10 ** (17 + self._step % 7) + self._step
        return self._sequence

    def _record(
        self, event: str, keys: Item, new: Item | None, old: Item | None, *, ttl: bool = False
    ) -> None:
        created_at = int(self._clock().timestamp())
        sequence = self._next_sequence()
        new_image, old_image = _json(new), _json(old)
        record = ChangeRecord(
            event_id=hashlib.sha256(f"{self.stream_arn} {sequence}".encode()).hexdigest()[:32],
            event_name=event,
            sequence_number=sequence,
            created_at=created_at,
            keys=_json(keys) or b"",
            new_image=new_image,
            old_image=old_image,
            size_bytes=len(new_image or b"") + len(old_image or b""),
            region="eu-west-1",
            view_type="NEW_AND_OLD_IMAGES",
            user_type="Service" if ttl else None,
            user_principal="dynamodb.amazonaws.com" if ttl else None,
        )
        self.changes.append(record)
        self._shard_of(keys).entries.append(record)

    def _shard_of(self, keys: Item) -> _Shard:
        """The open shard of a key: down from a root that its hash chooses.

        So a key keeps its line of shards, whatever splits and rolls.
        """
        digest = int.from_bytes(hashlib.sha256(self._name_of(keys).encode()).digest(), "big")
        children: dict[str | None, list[_Shard]] = {}
        for shard in self._streams[self.stream_arn].values():
            children.setdefault(shard.shard.parent_shard_id, []).append(shard)
        at = children[None][digest % len(children[None])]
        while not at.shard.is_open:
            digest //= 7
            heirs = children[at.shard.shard_id]
            at = heirs[digest % len(heirs)]
        return at

    def _keys_of(self, item: Item) -> Item:
        return {name: item[name] for name in self._key}

    def _name_of(self, item: Item) -> str:
        return json.dumps(self._keys_of(item), sort_keys=True)


def _sequences(shard: _Shard) -> list[int]:
    numbers: list[int] = []
    for entry in shard.entries:
        known = entry.sequence_number if entry is not None else None
        numbers.append(known if known is not None else (numbers[-1] if numbers else 0))
    return numbers


def _json(item: Item | None) -> bytes | None:
    return None if item is None else json.dumps(item, separators=(",", ":")).encode()
