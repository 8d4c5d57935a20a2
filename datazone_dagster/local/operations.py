"""Dispatch of requests by their `X-Amz-Target`, with faults and counters."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from datazone_dagster.local import (
    continuous_backups,
    exports,
    item_batches,
    item_pages,
    items,
    stream_listing,
    stream_reads,
    tables,
    tags,
)
from datazone_dagster.local.clock import ServerClock
from datazone_dagster.local.distortions import distorted_listing, distorted_page
from datazone_dagster.local.fault_injection import CalledShard, FaultInjector
from datazone_dagster.local.faults import (
    ERROR_KINDS,
    LISTING_KINDS,
    PAGE_KINDS,
    Fault,
    FaultKind,
)
from datazone_dagster.local.iterators import read
from datazone_dagster.local.kinesis import destinations
from datazone_dagster.local.kinesis.operations import OPERATIONS as KINESIS_OPERATIONS
from datazone_dagster.local.kinesis.operations import TARGET as KINESIS
from datazone_dagster.local.read_limits import ReadLimits
from datazone_dagster.local.readers import ReaderLimit
from datazone_dagster.local.service import Body, Call, Settings
from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.store import Store
from datazone_dagster.local.stream_reads import RecordsPage

_Operation = Callable[[Call, Body], "Body | RecordsPage"]

_OPERATIONS: dict[str, dict[str, _Operation]] = {
    "DynamoDB_20120810": {
        "CreateTable": tags.create_table,
        "DescribeTable": tables.describe_table,
        "UpdateTable": tables.update_table,
        "DeleteTable": tables.delete_table,
        "ListTables": tables.list_tables,
        "TagResource": tags.tag_resource,
        "UntagResource": tags.untag_resource,
        "UpdateTimeToLive": tables.update_time_to_live,
        "DescribeTimeToLive": tables.describe_time_to_live,
        "UpdateContinuousBackups": continuous_backups.update_continuous_backups,
        "DescribeContinuousBackups": continuous_backups.describe_continuous_backups,
        "ExportTableToPointInTime": exports.export_table,
        "DescribeExport": exports.describe_export,
        "ListExports": exports.list_exports,
        "EnableKinesisStreamingDestination": destinations.enable,
        "DisableKinesisStreamingDestination": destinations.disable,
        "UpdateKinesisStreamingDestination": destinations.update,
        "DescribeKinesisStreamingDestination": destinations.describe,
        "PutItem": items.put_item,
        "GetItem": items.get_item,
        "UpdateItem": items.update_item,
        "DeleteItem": items.delete_item,
        "BatchWriteItem": item_batches.batch_write_item,
        "BatchGetItem": item_batches.batch_get_item,
        "TransactWriteItems": item_batches.transact_write_items,
        "Scan": item_pages.scan,
        "Query": item_pages.query,
    },
    "ResourceGroupsTaggingAPI_20170126": {"GetResources": tags.get_resources},
    "DynamoDBStreams_20120810": {
        "ListStreams": stream_listing.list_streams,
        "DescribeStream": stream_listing.describe_stream,
        "GetShardIterator": stream_reads.get_shard_iterator,
        "GetRecords": stream_reads.get_records,
    },
    KINESIS: KINESIS_OPERATIONS,
}


class Answer(NamedTuple):
    """Answer to send. `fault` is a fault that the connection has to act out."""

    status: int
    body: bytes
    fault: Fault | None = None


class ResetBeforeWorkError(Exception):
    """The fault plan resets the connection before any work is done."""


class Operations:
    """All operations of DynamoDB, its streams and Kinesis. Thread safe.

    Args:
        store: Store of the state.
        clock: Clock of the server.
        settings: Settings of the server.
    """

    def __init__(self, store: Store, clock: ServerClock, settings: Settings) -> None:
        self.store, self.clock, self.settings = store, clock, settings
        self.faults = FaultInjector()
        self.readers = ReaderLimit()
        self.read_limits = ReadLimits()
        self._counts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._served: Counter[str] = Counter()
        self._counting = threading.Lock()

    def answer(self, target: str, raw: bytes, region: str) -> Answer:
        """Carry out one request.

        Args:
            target: Value of the `X-Amz-Target` header.
            raw: JSON body of the request.
            region: Region that the client signed for.

        Raises:
            ResetBeforeWorkError: The fault plan resets the connection.
        """
        service, _, name = target.partition(".")
        try:
            operation = _OPERATIONS.get(service, {}).get(name)
            if operation is None:
                raise ServiceError("UnknownOperationException", f"Unknown operation: {target}")
            self._count(self._counts, name)
            return self._carry_out(service, name, operation, decoded(raw), region)
        except ServiceError as error:
            self._count(self._errors, error.code)
            return Answer(error.status, error.encoded())

    def _carry_out(
        self, service: str, name: str, operation: _Operation, body: Body, region: str
    ) -> Answer:
        fault = self._fault(service, name, body) if self.faults.armed else None
        if fault is not None:
            if fault.kind in ERROR_KINDS:
                raise ServiceError(fault.kind.value, f"Injected fault: {fault.kind.value}")
            if fault.kind is FaultKind.CONNECTION_RESET:
                raise ResetBeforeWorkError
        if name == "GetRecords" and service != KINESIS and self.settings.two_readers_a_shard:
            self._admit_reader(body)
        with self.store.transaction() as db:
            call = Call(db, self.clock, self.settings, region, self.read_limits)
            answer = operation(call, body)
            if fault is not None:
                answer = _distorted(call, body, answer, fault)
        if isinstance(answer, RecordsPage):
            encoded = answer.encoded()
            self._count(self._served, "records", len(answer.records))
            self._count(self._served, "empty_pages", not answer.records)
        else:
            encoded = msgspec.json.encode(answer)
        return Answer(200, encoded, fault)

    def _fault(self, service: str, name: str, body: Body) -> Fault | None:
        table = "kinesis_shards" if service == KINESIS else "shards"
        return self.faults.strike(name, self._called_shard(table, body), self.clock.now())

    def _called_shard(self, table: str, body: Body) -> CalledShard | None:
        by_number = f"SELECT * FROM {table} WHERE number = ?"  # noqa: S608 - fixed names
        by_id = f"SELECT * FROM {table} WHERE shard_id = ?"  # noqa: S608 - fixed names
        with self.store.transaction() as db:
            if isinstance(body.get("ShardIterator"), str):
                try:
                    position = read(body["ShardIterator"], 0.0)  # at time 0 no iterator is expired
                except ServiceError:
                    return None
                row = db.execute(by_number, (position.shard,)).fetchone()
            elif isinstance(body.get("ShardId"), str):
                row = db.execute(by_id, (body["ShardId"],)).fetchone()
            else:
                return None
            if row is None:
                return None
            earlier = db.execute(
                f"SELECT count(*) AS shards FROM {table} WHERE stream = ? AND number < ?",  # noqa: S608 - fixed names
                (row["stream"], row["number"]),
            ).fetchone()
        return CalledShard(row["shard_id"], earlier["shards"])

    def _admit_reader(self, body: Body) -> None:
        position = read(str(body.get("ShardIterator", "")), self.clock.now())
        self.readers.admit(position.shard, position.reader, self.clock.now())

    def _count(self, counter: Counter[str], key: str, by: int = 1) -> None:
        with self._counting:
            counter[key] += by

    def counters(self) -> Body:
        """Return calls by operation, errors by code and GetRecords totals since the last reset."""
        with self._counting:
            return {
                "calls": dict(self._counts),
                "errors": dict(self._errors),
                "records": self._served["records"],
                "empty_pages": self._served["empty_pages"],
            }

    def reset_counters(self) -> None:
        """Set every counter to 0."""
        with self._counting:
            for counter in (self._counts, self._errors, self._served):
                counter.clear()


def decoded(raw: bytes) -> Body:
    """Return a request's body.

    Raises:
        ServiceError: `SerializationException`: it is not a JSON object, or is nested too deeply.
    """
    try:
        body = msgspec.json.decode(raw, type=Body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ServiceError("SerializationException", f"The body is not JSON: {error}") from None
    except RecursionError:
        raise ServiceError("SerializationException", "The body is nested too deeply") from None
    if b"\\u" in raw and not _encodable(body):
        raise ServiceError("SerializationException", "The body has half a surrogate pair")
    return body


def _encodable(body: Body) -> bool:
    try:
        msgspec.json.encode(body)
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def _distorted(
    call: Call, body: Body, answer: Body | RecordsPage, fault: Fault
) -> Body | RecordsPage:
    if isinstance(answer, RecordsPage):
        return distorted_page(call, body, answer, fault) if fault.kind in PAGE_KINDS else answer
    return distorted_listing(call, answer, fault) if fault.kind in LISTING_KINDS else answer
