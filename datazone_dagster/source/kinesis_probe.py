"""Tries each call that a Kinesis source needs, once and as small as it can be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from datazone_dagster.api.kinesis_source import KinesisSource
from datazone_dagster.model.source_facts import KinesisFacts
from datazone_dagster.source.endpoints import is_local
from datazone_dagster.source.failures import Call
from datazone_dagster.source.session import KinesisClients
from datazone_dagster.source.tried_calls import TriedCalls

T = TypeVar("T")


class KinesisProbe:
    """One look at a Kinesis source.

    Args:
        source: The source.
        clients: Clients of DynamoDB and of Kinesis.
        role_arn: Role that is assumed, for error texts.
    """

    def __init__(
        self, source: KinesisSource, clients: KinesisClients, *, role_arn: str | None = None
    ) -> None:
        self._source, self._clients, self._role_arn = source, clients, role_arn
        self._tried = TriedCalls()

    def facts(self) -> KinesisFacts:
        """Try every call, and return what they say. No call raises."""
        source = self._source
        dynamodb: Any = self._clients.dynamodb
        table, reads_items = source.table_name, source.start == "snapshot"
        self._try("dynamodb:DescribeTable", lambda: dynamodb.describe_table(TableName=table))
        found = self._try(
            "dynamodb:DescribeKinesisStreamingDestination",
            lambda: dynamodb.describe_kinesis_streaming_destination(TableName=table),
        )
        sent = [
            one
            for one in (found or {}).get("KinesisDataStreamDestinations", ())
            if one["StreamArn"].endswith(f":stream/{source.stream_name}")
        ]
        retention_hours = self._stream()
        if reads_items:
            self._try("dynamodb:Scan", lambda: dynamodb.scan(TableName=table, Limit=1))
        return KinesisFacts(
            source=source.name,
            stream_name=source.stream_name,
            is_local=is_local(dynamodb.meta.endpoint_url),
            asked=tuple(self._tried.asked),
            failures=self._tried.failures,
            reads_items=reads_items,
            status=sent[0]["DestinationStatus"] if sent else "",
            is_coarse=bool(sent)
            and sent[0].get("ApproximateCreationDateTimePrecision") != "MICROSECOND",
            retention_hours=retention_hours,
        )

    def _stream(self) -> int | None:
        """Try the calls on the stream; return its retention in hours."""
        kinesis, name = self._clients.kinesis, self._source.stream_name
        summary = self._try(
            "kinesis:DescribeStreamSummary",
            lambda: kinesis.describe_stream_summary(StreamName=name)["StreamDescriptionSummary"],
        )
        if summary is None:
            return None
        arn = summary["StreamARN"]
        shards = self._try(
            "kinesis:ListShards",
            lambda: kinesis.list_shards(StreamARN=arn, MaxResults=1)["Shards"],
        )
        iterator = shards and self._try(
            "kinesis:GetShardIterator",
            lambda: kinesis.get_shard_iterator(
                StreamARN=arn, ShardId=shards[0]["ShardId"], ShardIteratorType="LATEST"
            )["ShardIterator"],
        )
        if iterator:
            self._try(
                "kinesis:GetRecords",
                lambda: kinesis.get_records(ShardIterator=iterator, Limit=1)["Records"],
            )
        hours: int = summary["RetentionPeriodHours"]
        return hours

    def _try(self, action: str, ask: Callable[[], T]) -> T | None:
        """Make one call; keep its error, and return None then."""
        service, _, operation = action.partition(":")
        is_table = service == "dynamodb"
        client: Any = self._clients.dynamodb if is_table else self._clients.kinesis
        call = Call(
            operation,
            self._source.table_name,
            client.meta.region_name,
            client.meta.endpoint_url,
            None if is_table else f"stream/{self._source.stream_name}",
            None,
            self._role_arn,
            service="dynamodb" if is_table else "kinesis",
        )
        return self._tried.make(action, call, ask)
