"""Stream client for the Kinesis stream that a DynamoDB table sends its changes to."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple

from datazone_dagster.errors import ShardNotFoundError, StreamDisabledError
from datazone_dagster.model.protocols import Answer
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.shard import IteratorStart, Shard, StreamDescription, joined_parents
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.source import capture
from datazone_dagster.source.client import endless, require_kind
from datazone_dagster.source.failures import Call, translated
from datazone_dagster.source.kinesis_wire import VIEW_TYPE, parse_kinesis_page
from datazone_dagster.source.listed_streams import identity_of
from datazone_dagster.source.page_size import PageSizes
from datazone_dagster.source.read_pace import ReadPace
from datazone_dagster.source.service_time import note_answers, served_at, told_by
from datazone_dagster.source.session import KinesisClientFactory, KinesisClients

_FLOWING = ("ACTIVE", "ENABLING", "UPDATING")
"""States of a destination in which changes of the table reach the stream."""


class _Destination(NamedTuple):
    is_flowing: bool
    is_precise: bool


class KinesisStreamClient:
    """`StreamClient`, `KnowsTable`, `TellsTime` and `ParsesLater` for a Kinesis stream.

    The ARN of a stream ends here with the time of its creation: a stream that is created again has
    the same ARN in the service, and is another stream in our tables.

    Safe to call from several threads. Every method raises only subclasses of `SourceError`.

    Args:
        table_name: Table whose changes are read.
        stream_name: Kinesis stream that the table sends its changes to.
        clients: Pair of clients, or a function that builds it; called once, on first use.
        role_arn: Role that the clients assume, for error texts.
        pace: When each shard may be read again.
    """

    def __init__(
        self,
        table_name: str,
        stream_name: str,
        clients: KinesisClients | KinesisClientFactory,
        *,
        role_arn: str | None = None,
        pace: ReadPace | None = None,
    ) -> None:
        self.table_name, self.stream_name = table_name, stream_name
        self._role_arn = role_arn
        self._pace = pace or ReadPace()
        self._sizes = PageSizes()
        self._lock = threading.Lock()
        self._factory = None if isinstance(clients, KinesisClients) else clients
        self._clients: KinesisClients | None = None
        self._identity: SourceIdentity | None = None
        self._summary: Any = None
        self._destination: _Destination | None = None
        if isinstance(clients, KinesisClients):
            self._clients = self._prepared(clients)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table_name!r}, {self.stream_name!r})"

    def stream_arns(self) -> tuple[str, ...]:
        """Return the ARN of the stream, as the only one.

        Raises:
            TableNotFoundError: The table does not exist.
            StreamDisabledError: There is no such stream, or the table never sent to it.
        """
        call = self._call("DescribeTable", "dynamodb")
        self._identity = identity_of({}, call, exists=False)
        ask: Any = self._connected().dynamodb.describe_table
        with translated(call):
            table = ask(TableName=self.table_name)["Table"]
            self._identity = replace(identity_of(table, call), stream_arn="")
        self._summary, self._destination = None, self._asked_for_destination()
        if self._destination is None:
            raise _not_sent(call, self.stream_name)
        try:
            stream_arn = _name_of(self._described())
        except ShardNotFoundError:
            raise _no_stream(call, self.stream_name) from None
        self._identity = replace(self._identity, stream_arn=stream_arn)
        return (stream_arn,)

    def identity(self) -> SourceIdentity | None:
        """See `KnowsTable`."""
        return self._identity

    def describe(self, stream_arn: str) -> StreamDescription:
        """Return the stream with all its shards, from every page of the listing.

        `enabled` says whether the table sends its changes to the stream now.

        Raises:
            ShardNotFoundError: It is not the stream of that name, or no longer.
        """
        call = self._call("ListShards", stream_arn=stream_arn)
        summary = self._described()
        require_kind(call, stream_arn != _name_of(summary))
        arn = summary["StreamARN"]
        shards: dict[str, Shard] = {}
        request: dict[str, str] = {"StreamARN": arn}
        tokens: set[str] = set()
        first_served_at: datetime | None = None
        while True:
            with translated(call):
                answer = self._connected().kinesis.list_shards(**request)
                first_served_at = first_served_at or served_at(answer)
                shards.update((shard["ShardId"], _shard(shard)) for shard in answer["Shards"])
                token = answer.get("NextToken")
            if token is None:
                break
            if token in tokens:
                raise endless(call)
            tokens.add(token)
            request = {"NextToken": token}
        destination = self._destination or self._asked_for_destination()
        return StreamDescription(
            stream_arn=stream_arn,
            view_type=VIEW_TYPE,
            enabled=destination is not None and destination.is_flowing,
            shards=tuple(shards.values()),
            served_at=first_served_at,
            retention=timedelta(hours=summary["RetentionPeriodHours"]),
            is_coarse=destination is not None and not destination.is_precise,
        )

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """Return a shard iterator, valid for 5 minutes.

        Raises:
            TrimmedDataError: The stream no longer has the position.
            ShardNotFoundError: The service no longer knows the shard.
        """
        call = self._call("GetShardIterator", stream_arn=stream_arn, shard_id=shard_id)
        arn = self._arn_of(stream_arn, call)
        position: dict[str, str] = {}
        if start.sequence_number is not None:
            position["StartingSequenceNumber"] = str(start.sequence_number)
        with translated(call):
            iterator: str = self._connected().kinesis.get_shard_iterator(
                StreamARN=arn, ShardId=shard_id, ShardIteratorType=start.at.value, **position
            )["ShardIterator"]
        self._pace.issued(iterator, (stream_arn, shard_id))
        return iterator

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """Return the next page of a shard: about 1 MB, at most 10,000 records or 10 MB.

        Raises:
            ExpiredIteratorError: The iterator is older than 5 minutes.
            ShardNotFoundError: The service no longer knows the shard.
        """
        return self.ask_for_records(shard_iterator)()

    def ask_for_records(self, shard_iterator: str) -> Answer:
        """Call GetRecords, once the shard may be read again, and leave the page unparsed.

        Raises:
            SourceError: As `get_records`; a damaged body raises here, not in parsing.
        """
        call = self._call("GetRecords")
        ask = self._connected().kinesis.get_records
        shard = self._pace.wait(shard_iterator)
        with translated(call), capture.capturing() as answer:
            ask(ShardIterator=shard_iterator, Limit=self._sizes.limit(shard))
        body = answer.body(call.summary)
        assert body is not None, "the handler was installed"
        self._pace.was_read(shard, len(body) * 3 // 4)
        return partial(self._parsed, body, call.summary, shard)

    def told_time(self) -> tuple[datetime, float] | None:
        """See `TellsTime`."""
        return None if self._clients is None else told_by(self._clients)

    def close(self) -> None:
        """Close the HTTP connections. The client must not be used afterwards."""
        if self._clients is not None:
            for client in self._clients:
                client.close()

    def _parsed(self, body: bytes, summary: str, shard: tuple[str, str] | None) -> RecordsPage:
        page = parse_kinesis_page(body, self.table_name, summary)
        records = len(page.records) + len(page.malformed) + page.others
        self._sizes.was_read(shard, records, len(body) * 3 // 4)
        self._pace.issued(page.next_iterator, shard)
        return page

    def _described(self) -> Any:
        """Return the stream of this name, as of the last `stream_arns`; ask if that is unknown."""
        if self._summary is None:
            call = self._call("DescribeStreamSummary")
            ask = self._connected().kinesis.describe_stream_summary
            with translated(call):
                summary = ask(StreamName=self.stream_name)["StreamDescriptionSummary"]
                _name_of(summary)
            self._summary = summary
        return self._summary

    def _asked_for_destination(self) -> _Destination | None:
        """Return the stream as a destination of the table; None if it never was one."""
        call = self._call("DescribeKinesisStreamingDestination", "dynamodb")
        ask: Any = self._connected().dynamodb.describe_kinesis_streaming_destination
        with translated(call):
            found = [
                _Destination(
                    one["DestinationStatus"] in _FLOWING,
                    one.get("ApproximateCreationDateTimePrecision") == "MICROSECOND",
                )
                for one in ask(TableName=self.table_name).get("KinesisDataStreamDestinations", ())
                if one["StreamArn"].endswith(f":stream/{self.stream_name}")
            ]
        return max(found, default=None)

    def _arn_of(self, stream_arn: str, call: Call) -> str:
        summary = self._described()
        require_kind(call, stream_arn != _name_of(summary))
        arn: str = summary["StreamARN"]
        return arn

    def _connected(self) -> KinesisClients:
        if self._clients is None:
            with self._lock:
                if self._clients is None and self._factory is not None:
                    self._clients = self._prepared(self._factory())
        assert self._clients is not None
        return self._clients

    def _prepared(self, clients: KinesisClients) -> KinesisClients:
        capture.install(clients.kinesis, "GetRecords")
        note_answers(*clients)
        return clients

    def _call(
        self,
        operation: str,
        service: Any = "kinesis",
        *,
        stream_arn: str | None = None,
        shard_id: str | None = None,
    ) -> Call:
        clients = self._connected()
        client = clients.dynamodb if service == "dynamodb" else clients.kinesis
        return Call(
            operation,
            self.table_name,
            client.meta.region_name,
            client.meta.endpoint_url,
            stream_arn or (f"stream/{self.stream_name}" if service == "kinesis" else None),
            shard_id,
            self._role_arn,
            service=service,
        )


def _name_of(summary: Any) -> str:
    """Return our name of a stream: its ARN with the time of its creation."""
    created: datetime = summary["StreamCreationTimestamp"]
    label = created.astimezone(timezone.utc).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return f"{summary['StreamARN']}/{label}"


def _shard(answer: Any) -> Shard:
    """Return a shard. Its first number is left out: Kinesis orders no child after its parents."""
    ending = answer["SequenceNumberRange"].get("EndingSequenceNumber")
    return Shard(
        shard_id=answer["ShardId"],
        parent_shard_id=joined_parents(
            answer.get("ParentShardId"), answer.get("AdjacentParentShardId")
        ),
        ending_sequence_number=None if ending is None else int(ending),
    )


def _no_stream(call: Call, stream_name: str) -> StreamDisabledError:
    return StreamDisabledError(
        f"There is no Kinesis stream {stream_name!r} in region {call.region}.",
        safe="Nothing was read or written.",
        hint="Check stream_name and region of KinesisSource, and the account of the credentials.",
    )


def _not_sent(call: Call, stream_name: str) -> StreamDisabledError:
    return StreamDisabledError(
        f"Table {call.table_name!r} in region {call.region} does not send its changes to the "
        f"Kinesis stream {stream_name!r}.",
        safe="Changes made until it does are recorded nowhere.",
        hint="Enable it: aws dynamodb enable-kinesis-streaming-destination --table-name "
        f"{call.table_name} --region {call.region} --stream-arn <ARN of {stream_name}> "
        "--enable-kinesis-streaming-configuration ApproximateCreationDateTimePrecision=MICROSECOND",
    )
