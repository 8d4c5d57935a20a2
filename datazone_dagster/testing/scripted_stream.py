"""DynamoDB stream in memory, controlled by a test."""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Callable
from datetime import datetime

from datazone_dagster.errors import (
    DefinitionError,
    ExpiredIteratorError,
    ShardNotFoundError,
    SourceError,
    StreamDisabledError,
    TableNotFoundError,
)
from datazone_dagster.local.faults import FaultPlan
from datazone_dagster.model.record import ChangeRecord, MalformedRecord, RecordsPage
from datazone_dagster.model.service_limits import (
    ITERATOR_LIFETIME_SECONDS,
    PAGE_RECORDS,
)
from datazone_dagster.model.shard import IteratorStart, Shard
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.testing.clock import FixedClock
from datazone_dagster.testing.scripted_faults import FaultFunction, faults_of_plan
from datazone_dagster.testing.scripted_listing import ScriptedListing
from datazone_dagster.testing.scripted_lock import LOCK, locked
from datazone_dagster.testing.scripted_record import (
    BOTH_IMAGES,
    REGION,
    VIEW_TYPES,
    Item,
    change_record,
    malformed_record,
    new_stream_arn,
    table_arn,
)
from datazone_dagster.testing.scripted_shards import ScriptedShard, ScriptedShards

_FIRST_SEQUENCE = 100 * 10**18


class ScriptedStream(ScriptedListing):
    """Table with a stream, in memory. Implements `model.protocols.StreamClient`.

    The conformance suite of the clients for DynamoDB runs against it too. It differs from the
    service in three ways. Records are trimmed by `trim` and `trim_through` only, whatever the
    clock shows. Faults are raised at once, as by a client that has used up its retries. Items are
    not validated, and their numbers and sets stay as they are written.

    Args:
        table_name: Name of the table.
        key: Names of the key attributes.
        shards: Number of open shards at the start.
        page_records: Number of records in a full page, 1 to 1,000; a small number makes many
            pages. A page also ends before 1 MB.
        clock: Clock of change times and of the expiry of iterators.
        faults: Fault plan, or a function called before each operation with its name, shard id
            and call count; an error that the function returns is raised.
        view_type: View type of the stream; None creates the table without a stream.

    Raises:
        DefinitionError: `page_records` or `view_type` is not one of the service.
    """

    def __init__(
        self,
        table_name: str = "orders",
        *,
        key: tuple[str, ...] = ("id",),
        shards: int = 1,
        page_records: int = PAGE_RECORDS,
        clock: Callable[[], datetime] | None = None,
        faults: FaultPlan | FaultFunction | None = None,
        view_type: str | None = BOTH_IMAGES,
    ) -> None:
        if not 1 <= page_records <= PAGE_RECORDS:
            raise DefinitionError(
                f"ScriptedStream(page_records={page_records}): it must be 1 to {PAGE_RECORDS}."
            )
        self.table_name = table_name
        self.items: dict[str, Item] = {}
        self.changes: list[ChangeRecord] = []
        self.calls: dict[str, int] = {}
        self._key = key
        self._page_records = page_records
        self._clock = clock or FixedClock()
        self._sequence = _FIRST_SEQUENCE
        self._step = 0
        self._streams: dict[str, ScriptedShards] = {}
        self._table_exists = True
        self._table_id = str(uuid.uuid4())
        self._hidden: set[str] = set()
        self._initial_shards = shards
        self._faults: FaultFunction | None = None
        self.faults = faults
        if view_type is not None:
            self.enable(view_type)

    @property
    def faults(self) -> FaultFunction | None:
        """Function that fails calls. A fault plan can be set too; its counts start at 0."""
        return self._faults

    @faults.setter
    def faults(self, faults: FaultPlan | FaultFunction | None) -> None:
        if isinstance(faults, FaultPlan):
            faults = faults_of_plan(faults, lambda: list(self._streams[self.stream_arn].shards))
        self._faults = faults

    @property
    def stream_arn(self) -> str:
        """ARN of the newest stream.

        Raises:
            StreamDisabledError: The table never had a stream.
        """
        if not self._streams:
            raise self._no_stream()
        return list(self._streams)[-1]

    @locked
    def put(self, item: Item) -> None:
        """Write an item. An unchanged item makes no record, as in the service."""
        self._require_table()
        name = self._name_of(item)
        old = self.items.get(name)
        if old == item:
            return
        self._record(self._keys_of(item), item, old)
        self.items[name] = copy.deepcopy(item)

    @locked
    def delete(self, key: Item, *, ttl: bool = False) -> None:
        """Delete an item; an absent item makes no record."""
        self._require_table()
        old = self.items.pop(self._name_of(key), None)
        if old is not None:
            self._record(self._keys_of(key), None, old, ttl=ttl)

    @locked
    def split(self, index: int = 0) -> None:
        """Close an open shard; two children take over its keys."""
        self._replace_shard(self._open_shards()[index], children=2)

    @locked
    def roll(self, index: int = 0) -> None:
        """Close an open shard; one child takes over its keys."""
        self._replace_shard(self._open_shards()[index], children=1)

    @locked
    def empty_page(self, index: int = 0) -> None:
        """Append an empty page to an open shard."""
        self._open_shards()[index].append(self._next_sequence(), None)

    @locked
    def rewrite(self, record: ChangeRecord, instead: ChangeRecord) -> None:
        """Make the stream deliver another record instead of this one, at the same position."""
        for shard in self._all_shards():
            if record in shard.entries:
                shard.entries[shard.entries.index(record)] = instead

    @locked
    def malformed(self, raw: bytes, index: int = 0) -> None:
        """Append bytes that are not a stream record to an open shard."""
        self._open_shards()[index].append(self._next_sequence(), malformed_record(raw))

    @locked
    def trim(self) -> None:
        """Trim all records so far, and closed shards with them."""
        for shard in self._all_shards():
            shard.trim()

    @locked
    def trim_through(self, shard_id: str, sequence_number: int) -> None:
        """Trim one shard of the current stream up to and including a sequence number."""
        self._shard(self.stream_arn, shard_id).trim(sequence_number)

    @locked
    def disable(self) -> None:
        """Disable the stream: changes are recorded nowhere, records so far stay readable."""
        stream = self._enabled()
        if stream is not None:
            for shard in stream.open_shards():
                shard.close(self._next_sequence())
            stream.is_enabled = False

    @locked
    def enable(self, view_type: str = BOTH_IMAGES) -> None:
        """Enable a stream: a new ARN, and sequence numbers start over.

        Raises:
            DefinitionError: The view type is not one of the service, or a stream is enabled.
        """
        if view_type not in VIEW_TYPES:
            raise DefinitionError(
                f"view_type={view_type!r} is not a view type of a stream.",
                hint=f"Use one of {', '.join(VIEW_TYPES)}.",
            )
        if self._enabled() is not None:
            raise DefinitionError(
                f"Table {self.table_name!r} has an enabled stream.", hint="Call disable() first."
            )
        self._sequence = _FIRST_SEQUENCE
        arn = new_stream_arn(self.table_name, self._clock(), taken=self._streams)
        self._streams[arn] = ScriptedShards(view_type)
        for _ in range(self._initial_shards):
            self._add_shard(arn, parent=None)

    @locked
    def replace(self) -> None:
        """Disable the stream and enable it again: a new ARN, and sequence numbers start over."""
        self.disable()
        self.enable(self._streams[self.stream_arn].view_type)

    @locked
    def delete_table(self) -> None:
        """Delete the table. Its items make no records; records so far stay readable."""
        self.disable()
        self.items.clear()
        self._table_exists = False

    @locked
    def shard_ids(self) -> list[str]:
        """Return the shards of the current stream that are still listed, oldest first."""
        return [shard.shard.shard_id for shard in self._streams[self.stream_arn].listed()]

    @locked
    def shard_index(self, item: Item) -> int:
        """Return the index of the open shard that takes the changes of an item's key."""
        stream = self._streams[self.stream_arn]
        return stream.open_shards().index(stream.shard_of(self._name_of(item)))

    # -- StreamClient ------------------------------------------------------------------

    def stream_arns(self) -> tuple[str, ...]:
        """See `StreamClient`."""
        self._maybe_fail("ListStreams", "")
        self._maybe_fail("DescribeTable", "")
        with LOCK:
            self._require_table()
            arns = [arn for arn, stream in self._streams.items() if stream.is_readable()]
        if not arns:
            raise self._no_stream()
        return tuple(arns)

    @locked
    def identity(self) -> SourceIdentity:
        """See `KnowsTable`. It has no name: it may stand in for the table of any source."""
        arn = self.stream_arn if self._enabled() else ""
        own = table_arn(self.table_name)
        return SourceIdentity("", "", "", self._table_exists, own, self._table_id, arn)

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """See `StreamClient`."""
        self._maybe_fail("GetShardIterator", shard_id)
        with LOCK:
            position = self._shard(stream_arn, shard_id).position(start)
            return self._iterator(stream_arn, shard_id, position)

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """See `StreamClient`."""
        try:
            stream_arn, shard_id, position, issued_at = json.loads(shard_iterator)
        except (ValueError, TypeError):
            raise SourceError(f"{shard_iterator!r} is not an iterator of this stream.") from None
        self._maybe_fail("GetRecords", shard_id)
        if self._clock().timestamp() - issued_at > ITERATOR_LIFETIME_SECONDS:
            raise ExpiredIteratorError(f"The iterator of shard {shard_id} has expired.")
        with LOCK:
            shard = self._shard(stream_arn, shard_id)
            page, body_bytes, position = shard.page(position, self._page_records)
            at_end = shard.ends_at(position)
            return RecordsPage(
                [entry for entry in page if isinstance(entry, ChangeRecord)],
                None if at_end else self._iterator(stream_arn, shard_id, position),
                body_bytes,
                [entry for entry in page if isinstance(entry, MalformedRecord)],
            )

    # -- internals ---------------------------------------------------------------------

    def _require_table(self) -> None:
        if not self._table_exists:
            raise TableNotFoundError(f"There is no table {self.table_name!r} in region {REGION}.")

    def _no_stream(self) -> StreamDisabledError:
        return StreamDisabledError(
            f"Table {self.table_name!r} has no stream.",
            hint=f"Call enable() for one with view type {BOTH_IMAGES}.",
        )

    def _iterator(self, stream_arn: str, shard_id: str, position: int) -> str:
        return json.dumps([stream_arn, shard_id, position, self._clock().timestamp()])

    def _shard(self, stream_arn: str, shard_id: str) -> ScriptedShard:
        stream = self._streams.get(stream_arn)
        shard = stream.shards.get(shard_id) if stream is not None else None
        if shard is None or shard.gone:
            raise ShardNotFoundError(f"Shard {shard_id} of {stream_arn} does not exist.")
        return shard

    def _all_shards(self) -> list[ScriptedShard]:
        return [shard for stream in self._streams.values() for shard in stream.shards.values()]

    def _enabled(self) -> ScriptedShards | None:
        stream = self._streams[self.stream_arn] if self._streams else None
        return stream if stream is not None and stream.is_enabled else None

    def _open_shards(self) -> list[ScriptedShard]:
        return self._streams[self.stream_arn].open_shards()

    def _add_shard(self, stream_arn: str, parent: str | None) -> None:
        number = len(self._all_shards()) + self._step
        shard_id = f"shardId-{number:020d}-{self._step:08x}"
        shard = Shard(shard_id, parent, self._next_sequence())
        self._streams[stream_arn].shards[shard_id] = ScriptedShard(shard)

    def _replace_shard(self, shard: ScriptedShard, children: int) -> None:
        shard.close(self._next_sequence())
        for _ in range(children):
            self._add_shard(self.stream_arn, shard.shard.shard_id)

    def _next_sequence(self) -> int:
        self._step += 1
        # Gaps and growing width, as in the service.
        self._sequence += 10 ** (17 + self._step % 7) + self._step
        return self._sequence

    def _record(self, keys: Item, new: Item | None, old: Item | None, *, ttl: bool = False) -> None:
        stream = self._enabled()
        if stream is None:
            return
        record = change_record(
            self.stream_arn,
            self._next_sequence(),
            int(self._clock().timestamp()),
            keys=keys,
            new=new,
            old=old,
            view_type=stream.view_type,
            ttl=ttl,
        )
        self.changes.append(record)
        stream.shard_of(self._name_of(keys)).append(record.sequence_number, record)

    def _keys_of(self, item: Item) -> Item:
        return {name: item[name] for name in self._key}

    def _name_of(self, item: Item) -> str:
        return json.dumps(self._keys_of(item), sort_keys=True)
