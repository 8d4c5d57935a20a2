"""Tries each call that a source needs, once and as small as it can be, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import boto3

from datazone_dagster.api import DynamoDBSource
from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.model.protocols import Clock, utc_now
from datazone_dagster.model.source_facts import SourceFacts
from datazone_dagster.source.assumed_role import assuming, base_session
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.endpoints import is_local
from datazone_dagster.source.failures import Call
from datazone_dagster.source.service_time import served_at
from datazone_dagster.source.session import Clients, client_config
from datazone_dagster.source.tried_calls import TriedCalls

CALLER = "sts:GetCallerIdentity"
LAMBDAS = "lambda:ListEventSourceMappings"
RECOVERY = "dynamodb:DescribeContinuousBackups"

_VALUES = {"S": "datazone-dagster doctor", "N": "0", "B": b"datazone-dagster doctor"}
"""Values of a key that no item is expected to have; if one has it, it is read and dropped."""

T = TypeVar("T")


class SourceProbe:
    """One look at a source.

    Args:
        source: The source.
        clients: Clients of DynamoDB and of its streams.
        other: Returns the client of another service, `sts` or `lambda`.
        role_arn: Role that is assumed, for error texts.
        clock: Clock of this machine.
    """

    def __init__(
        self,
        source: DynamoDBSource,
        clients: Clients,
        other: Callable[[str], Any],
        *,
        role_arn: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._source, self._clients, self._other = source, clients, other
        self._role_arn, self._clock = role_arn, clock
        self._tried = TriedCalls()
        self._stream_arn: str | None = None

    def facts(self) -> SourceFacts:
        """Try every call, and return what they say. No call raises."""
        source, dynamodb = self._source, self._clients.dynamodb
        local = is_local(dynamodb.meta.endpoint_url)
        caller = None if local else self._try(CALLER, lambda: self._ask_sts()["Arn"])
        ahead: list[float] = []

        def describe() -> Any:
            answer = dynamodb.describe_table(TableName=source.table_name)
            served = served_at(cast("Any", answer))
            if served is not None:
                ahead.append((self._clock() - served).total_seconds())
            return answer["Table"]

        table = self._try("dynamodb:DescribeTable", describe) or {}
        stream = table.get("StreamSpecification", {})
        arn = table.get("LatestStreamArn") if stream.get("StreamEnabled") else None
        reads_items = not source.stream_enabled or source.start == "snapshot"
        streams = self._streams(arn) if source.stream_enabled else None
        if reads_items and table:
            self._read_items(table)
        region = dynamodb.meta.region_name
        replicas = [one.get("RegionName", "") for one in table.get("Replicas", ())]
        return SourceFacts(
            source=source.name,
            is_local=local,
            caller=caller,
            asked=tuple(self._tried.asked),
            failures=self._tried.failures,
            reads_items=reads_items,
            view_type=stream.get("StreamViewType") if arn else None,
            streams=streams,
            replicas=tuple(one for one in replicas if one and one != region),
            lambdas=self._lambdas(arn) if arn and not local else None,
            recovery=self._try(RECOVERY, self._recovery) if table else None,
            clock_seconds=ahead[0] if ahead else None,
        )

    def _try(self, action: str, ask: Callable[[], T]) -> T | None:
        """Make one call; keep its error, and return None then."""
        service, _, operation = action.partition(":")
        client = self._clients.streams if operation in _STREAM_CALLS else self._clients.dynamodb
        endpoint = client.meta.endpoint_url if service == "dynamodb" else None
        call = Call(
            operation,
            self._source.table_name,
            client.meta.region_name,
            endpoint,
            self._stream_arn,
            None,
            self._role_arn,
        )
        return self._tried.make(action, call, ask)

    def _streams(self, arn: str | None) -> int | None:
        """Try the calls on the stream, and return the number of streams."""
        ask: Any = self._clients.streams
        name = self._source.table_name
        listed = self._try(
            "dynamodb:ListStreams", lambda: ask.list_streams(TableName=name)["Streams"]
        )
        if isinstance(self._tried.failures.get("dynamodb:ListStreams"), ServiceUnavailableError):
            return None  # the endpoint does not answer: each other call would wait as long
        self._stream_arn = arn = arn or (listed[-1]["StreamArn"] if listed else None)
        if arn is not None:
            shards = self._try(
                "dynamodb:DescribeStream",
                lambda: ask.describe_stream(StreamArn=arn, Limit=1)["StreamDescription"]["Shards"],
            )
            iterator = shards and self._try(
                "dynamodb:GetShardIterator",
                lambda: ask.get_shard_iterator(
                    StreamArn=arn, ShardId=shards[0]["ShardId"], ShardIteratorType="LATEST"
                )["ShardIterator"],
            )
            if iterator:
                self._try(
                    "dynamodb:GetRecords",
                    lambda: ask.get_records(ShardIterator=iterator, Limit=1)["Records"],
                )
        return None if listed is None else len(listed)

    def _read_items(self, table: Any) -> None:
        name, ask = self._source.table_name, cast("Any", self._clients.dynamodb)
        self._try("dynamodb:Scan", lambda: ask.scan(TableName=name, Limit=1)["Count"])
        if self._source.stream_enabled:
            types = {
                one["AttributeName"]: one["AttributeType"] for one in table["AttributeDefinitions"]
            }
            names = [one["AttributeName"] for one in table["KeySchema"]]
            key = {one: {types[one]: _VALUES[types[one]]} for one in names}
            self._try(
                "dynamodb:BatchGetItem",
                lambda: ask.batch_get_item(RequestItems={name: {"Keys": [key]}})["Responses"],
            )

    def _recovery(self) -> bool:
        ask = self._clients.dynamodb
        found = ask.describe_continuous_backups(TableName=self._source.table_name)
        backups = found["ContinuousBackupsDescription"]
        recovery = backups.get("PointInTimeRecoveryDescription", {})
        return recovery.get("PointInTimeRecoveryStatus") == "ENABLED"

    def _lambdas(self, stream_arn: str) -> tuple[str, ...] | None:
        found = self._try(
            LAMBDAS,
            lambda: self._other("lambda").list_event_source_mappings(EventSourceArn=stream_arn),
        )
        if found is None:
            return None
        arns = [one["FunctionArn"] for one in found["EventSourceMappings"]]
        return tuple(arn.rpartition(":")[2] for arn in arns)

    def _ask_sts(self) -> Any:
        return self._other("sts").get_caller_identity()


_STREAM_CALLS = frozenset({"ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"})


def other_clients(settings: ConnectionSettings, region: str) -> Callable[[str], Any]:
    """Return a function that makes the client of another AWS service with the same identity."""

    def client(service: str) -> Any:
        core = base_session(settings)
        if settings.role_arn is not None:
            core = assuming(core, settings, region, client_config(settings))
        session: Any = boto3.Session(botocore_session=core)
        return session.client(service, region_name=region, config=client_config(settings))

    return client
