"""Stream client for DynamoDB, or for any service that implements its API."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from datazone_dagster.errors import (
    ServiceUnavailableError,
    StreamDisabledError,
    ViewTypeError,
)
from datazone_dagster.model.protocols import Answer
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.service_limits import SHARDS_PER_PAGE
from datazone_dagster.model.shard import (
    IteratorStart,
    Shard,
    ShardPage,
    StreamDescription,
    is_kinesis,
)
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.model.tagged_table import NEW_IMAGE_VIEWS
from datazone_dagster.source import capture
from datazone_dagster.source.failure_codes import REFUSED_CODES
from datazone_dagster.source.failures import Call, not_found, translated
from datazone_dagster.source.listed_streams import ListedStreams, identity_of, is_enabled
from datazone_dagster.source.parsed import page_from_parsed
from datazone_dagster.source.service_time import note_answers, served_at, told_by
from datazone_dagster.source.session import ClientFactory, Clients
from datazone_dagster.source.wire import parse_page

_SEQUENCE_NUMBER_MIN_DIGITS = 21  # API minimum; leading zeros are legal and get lost in an int


class BotoStreamClient:
    """`StreamClient` and the other protocols of `model.protocols`, on botocore.

    Safe to call from several threads. They share the HTTP connections of one pair of clients, at
    most `ConnectionSettings.max_pool_connections`.

    Args:
        table_name: Table whose streams are read.
        clients: Pair of clients, or a function that builds it; called once, on first use.
        raw_pages: Whether GetRecords bodies are captured before botocore's parser (twenty times
            faster). True installs a handler on the streams client that acts only in the calls
            of this class. False leaves bodies to the parser, but a record that it can't read
            then fails its page.
        role_arn: Role that the clients assume, for error texts.
        ask_for_gzip: Whether the service may compress raw pages: a fifth of the bytes on the
            wire, for half again the CPU of a drain. For slow or metered networks.

    Every method raises only subclasses of `SourceError` (see the protocol).
    """

    def __init__(
        self,
        table_name: str,
        clients: Clients | ClientFactory,
        *,
        raw_pages: bool = True,
        role_arn: str | None = None,
        ask_for_gzip: bool = False,
    ) -> None:
        self.table_name = table_name
        self._raw_pages = raw_pages
        self._ask_for_gzip = ask_for_gzip
        self._role_arn = role_arn
        self._lock = threading.Lock()
        self._factory: ClientFactory | None = None
        self._clients: Clients | None = None
        self._identity: SourceIdentity | None = None
        self._listed: ListedStreams | None = None
        if isinstance(clients, Clients):
            self._clients = self._prepared(clients)
        else:
            self._factory = clients

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.table_name!r})"

    def stream_arns(self) -> tuple[str, ...]:
        """Return the ARNs of the table's readable streams, oldest first, the current one last.

        Raises:
            TableNotFoundError: The table does not exist.
            StreamDisabledError: The table has no readable stream.
        """
        call = self._call("DescribeTable")
        self._identity = identity_of({}, call, exists=False)
        listed = self._listed
        is_recent = listed is not None and listed.is_recent(time.monotonic())
        if listed is None or not is_recent or not listed.are_of(self._described_table(call)):
            self._listed = listed = self._list_and_describe(call)
        if not listed.arns:
            raise _no_stream(call)
        return listed.arns

    def _list_and_describe(self, call: Call) -> ListedStreams:
        # List before describing the table: a stream enabled in between is then the latest.
        arns = self._listed_arns()
        table = self._described_table(call)
        latest, enabled = table.get("LatestStreamArn"), is_enabled(table)
        # The table still names its last stream long after that stream is gone.
        if latest is not None and (enabled or latest in arns):
            arns = [arn for arn in arns if arn != latest] + [latest]
        return ListedStreams.of(table, arns, time.monotonic())

    def _described_table(self, call: Call) -> Any:
        ask = self._connected().dynamodb.describe_table
        with translated(call):
            table = ask(TableName=self.table_name)["Table"]
            self._identity = identity_of(table, call)
        return table

    def identity(self) -> SourceIdentity | None:
        """See `KnowsTable`."""
        return self._identity

    def describe(self, stream_arn: str) -> StreamDescription:
        """Return a stream with all its shards, from every page of the listing.

        Raises:
            ViewTypeError: The stream does not carry new images.
        """
        shards: dict[str, Shard] = {}
        tokens: set[str] = set()
        first_served_at: datetime | None = None
        last: str | None = None
        while True:
            page = self.describe_page(stream_arn, last)
            first_served_at = first_served_at or page.stream.served_at
            shards.update((shard.shard_id, shard) for shard in page.stream.shards)
            last = page.last
            if last is None:
                break
            if last in tokens:
                raise endless(self._call("DescribeStream", stream_arn=stream_arn))
            tokens.add(last)
        return replace(page.stream, shards=tuple(shards.values()), served_at=first_served_at)

    def describe_page(self, stream_arn: str, after: str | None) -> ShardPage:
        """See `ListsInParts`: at most 100 shards.

        Raises:
            ShardNotFoundError: The service does not know the stream.
            ViewTypeError: The stream does not carry new images.
        """
        call = self._call("DescribeStream", stream_arn=stream_arn)
        require_kind(call, is_kinesis(stream_arn))
        ask: Any = self._connected().streams.describe_stream
        start = {} if after is None else {"ExclusiveStartShardId": after}
        with translated(call):
            answer = ask(StreamArn=stream_arn, Limit=SHARDS_PER_PAGE, **start)
            page = answer["StreamDescription"]
            described = StreamDescription(
                stream_arn=stream_arn,
                view_type=page["StreamViewType"],
                enabled=page.get("StreamStatus") in ("ENABLED", "ENABLING"),
                shards=tuple(_shard(shard) for shard in page.get("Shards", ())),
                served_at=served_at(answer),
            )
            last = page.get("LastEvaluatedShardId")
        _require_new_images(described.view_type, call)
        return ShardPage(described, last)

    def children(self, stream_arn: str, shard_id: str) -> tuple[Shard, ...] | None:
        """See `ListsInParts`.

        Returns:
            The children; None if the endpoint refuses the filter of DescribeStream, or ignores it.

        Raises:
            ShardNotFoundError: The service no longer knows the shard.
        """
        call = self._call("DescribeStream", stream_arn=stream_arn, shard_id=shard_id)
        require_kind(call, is_kinesis(stream_arn))
        ask: Any = self._connected().streams.describe_stream
        request: dict[str, Any] = {"StreamArn": stream_arn, "ShardFilter": _children_of(shard_id)}
        found: dict[str, Shard] = {}
        tokens: set[str] = set()
        while True:
            with translated(call):
                try:
                    page = ask(**request)["StreamDescription"]
                except ClientError as error:
                    if error.response.get("Error", {}).get("Code") in REFUSED_CODES:
                        return None
                    raise
                listed = [_shard(shard) for shard in page.get("Shards", ())]
                last = page.get("LastEvaluatedShardId")
            if any(shard.parent_shard_id != shard_id for shard in listed):
                return None
            found.update((shard.shard_id, shard) for shard in listed)
            if last is None:
                return tuple(found.values())
            if last in tokens:
                raise endless(call)
            tokens.add(last)
            request["ExclusiveStartShardId"] = last

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        """Return a shard iterator, valid for 15 minutes.

        Raises:
            TrimmedDataError: The position is before the trim horizon.
            ShardNotFoundError: The service no longer knows the shard.
        """
        position: dict[str, Any] = {}
        if start.sequence_number is not None:
            digits = _SEQUENCE_NUMBER_MIN_DIGITS
            position["SequenceNumber"] = f"{start.sequence_number:0{digits}d}"
        call = self._call("GetShardIterator", stream_arn=stream_arn, shard_id=shard_id)
        require_kind(call, is_kinesis(stream_arn))
        ask = self._connected().streams.get_shard_iterator
        with translated(call):
            answer = ask(
                StreamArn=stream_arn,
                ShardId=shard_id,
                ShardIteratorType=start.at.value,
                **position,
            )
            iterator: str = answer["ShardIterator"]
        return iterator

    def get_records(self, shard_iterator: str) -> RecordsPage:
        """Return the next page of a shard: at most 1,000 records or 1 MB.

        Raises:
            ExpiredIteratorError: The iterator is older than 15 minutes.
            TrimmedDataError: The iterator's position has been trimmed since.
            ShardNotFoundError: The service no longer knows the shard.
        """
        return self.ask_for_records(shard_iterator)()

    def ask_for_records(self, shard_iterator: str) -> Answer:
        """Call GetRecords and leave the page unparsed; see `ParsesLater`.

        Raises:
            SourceError: As `get_records`; a damaged body raises here, not in parsing.
        """
        call = self._call("GetRecords")
        ask = self._connected().streams.get_records
        if not self._raw_pages:
            with translated(call):
                parsed = ask(ShardIterator=shard_iterator)
                page = page_from_parsed(parsed, call.summary)
            return lambda: page
        with translated(call), capture.capturing() as answer:
            parsed = ask(ShardIterator=shard_iterator)
        body = answer.body(call.summary)
        if body is None:  # no HTTP response: the session is stubbed, for instance
            return partial(page_from_parsed, parsed, call.summary)
        return partial(parse_page, body, call.summary)

    def told_time(self) -> tuple[datetime, float] | None:
        """See `TellsTime`."""
        return None if self._clients is None else told_by(self._clients)

    def close(self) -> None:
        """Close the HTTP connections. The client must not be used afterwards."""
        if self._clients is not None:
            for client in self._clients:
                client.close()

    def _listed_arns(self) -> list[str]:
        """Return the ARNs from ListStreams, sorted by label, which is the time of creation."""
        call = self._call("ListStreams")
        ask: Any = self._connected().streams.list_streams
        found: list[tuple[str, str]] = []
        start: dict[str, str] = {}
        tokens: set[str] = set()
        while True:
            with translated(call):
                page = ask(TableName=self.table_name, **start)
                found += [
                    (stream.get("StreamLabel", ""), stream["StreamArn"])
                    for stream in page.get("Streams", ())
                    if stream.get("TableName", self.table_name) == self.table_name
                ]
                last = page.get("LastEvaluatedStreamArn")
            if last is None:
                return [arn for _, arn in sorted(found)]
            if last in tokens:
                raise endless(call)
            tokens.add(last)
            start = {"ExclusiveStartStreamArn": last}

    def _connected(self) -> Clients:
        if self._clients is None:
            with self._lock:
                if self._clients is None and self._factory is not None:
                    self._clients = self._prepared(self._factory())
        assert self._clients is not None
        return self._clients

    def _prepared(self, clients: Clients) -> Clients:
        if self._raw_pages:
            capture.install(clients.streams, "GetRecords", ask_for_gzip=self._ask_for_gzip)
        note_answers(*clients)
        return clients

    def _call(
        self, operation: str, *, stream_arn: str | None = None, shard_id: str | None = None
    ) -> Call:
        clients = self._connected()
        client = clients.dynamodb if operation == "DescribeTable" else clients.streams
        return Call(
            operation,
            self.table_name,
            client.meta.region_name,
            client.meta.endpoint_url,
            stream_arn,
            shard_id,
            self._role_arn,
        )


def require_kind(call: Call, is_of_other_kind: bool) -> None:
    """Refuse a stream of the other kind: the source was switched, and its service lacks it.

    Raises:
        ShardNotFoundError: It is one.
    """
    if is_of_other_kind:
        raise not_found(call)


def _children_of(shard_id: str) -> dict[str, str]:
    return {"Type": "CHILD_SHARDS", "ShardId": shard_id}


def _shard(answer: Any) -> Shard:
    numbers = answer.get("SequenceNumberRange", {})
    return Shard(
        shard_id=answer["ShardId"],
        parent_shard_id=answer.get("ParentShardId"),
        starting_sequence_number=_number(numbers.get("StartingSequenceNumber")),
        ending_sequence_number=_number(numbers.get("EndingSequenceNumber")),
    )


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def _require_new_images(view_type: str, call: Call) -> None:
    if view_type in NEW_IMAGE_VIEWS:
        return
    raise ViewTypeError(
        f"The stream {call.stream_arn} of table {call.table_name!r} has view type "
        f"{view_type}: it does not carry new images.",
        safe="Nothing was read.",
        hint="The view type of a stream can't be changed: disable the stream and enable it "
        "again with NEW_AND_OLD_IMAGES (a new stream ARN). Changes made in between are recorded "
        "nowhere: write the affected items again.",
    )


def _no_stream(call: Call) -> StreamDisabledError:
    return StreamDisabledError(
        f"Table {call.table_name!r} in region {call.region} has no stream.",
        safe="Changes made while a table has no stream are recorded nowhere.",
        hint="Enable one: aws dynamodb update-table --table-name "
        f"{call.table_name} --region {call.region} --stream-specification "
        "StreamEnabled=true,StreamViewType=NEW_AND_OLD_IMAGES. "
        "Items that are already in the table arrive when they are written again.",
    )


def endless(call: Call) -> ServiceUnavailableError:
    """Return the error for a listing whose pages do not end."""
    return ServiceUnavailableError(
        f"{call.summary}: the service returns the same page again and again.",
        safe="No position moved: the next drain tries again.",
        hint="Check the endpoint URL: an emulator may not page as DynamoDB does.",
    )
