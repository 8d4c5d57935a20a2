"""Short helpers for tables and streams through boto3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

from datazone_dagster.local import AdminClient, LocalDynamoDB


@dataclass(frozen=True)
class Clients:
    # Any: the stubs call members required that answers leave out (NextShardIterator).
    dynamodb: Any
    streams: Any
    admin: AdminClient


def clients_of(server: LocalDynamoDB, *, attempts: int = 1, read_timeout: float = 20.0) -> Clients:
    config = Config(
        retries={"total_max_attempts": attempts, "mode": "standard"},
        read_timeout=read_timeout,
        account_id_endpoint_mode="disabled",
    )
    session = boto3.Session(
        aws_access_key_id="local", aws_secret_access_key="local", region_name="us-west-2"
    )
    url = server.endpoint_url
    return Clients(
        session.client("dynamodb", endpoint_url=url, config=config),
        session.client("dynamodbstreams", endpoint_url=url, config=config),
        server.admin,
    )


@dataclass(frozen=True)
class Table:
    """Table with key `id` (S) and its stream."""

    name: str
    stream_arn: str
    clients: Clients

    def put(self, item_id: str, **attributes: Any) -> None:
        self.clients.dynamodb.put_item(
            TableName=self.name, Item={"id": {"S": item_id}, **attributes}
        )

    def delete(self, item_id: str) -> None:
        self.clients.dynamodb.delete_item(TableName=self.name, Key={"id": {"S": item_id}})

    def update(self, item_id: str, expression: str, **values: Any) -> Any:
        more: dict[str, Any] = {}
        if values:
            more["ExpressionAttributeValues"] = {f":{name}": v for name, v in values.items()}
        return self.clients.dynamodb.update_item(
            TableName=self.name,
            Key={"id": {"S": item_id}},
            UpdateExpression=expression,
            ReturnValues="ALL_NEW",
            **more,
        )["Attributes"]

    def items(self) -> dict[str, Any]:
        pages = self.clients.dynamodb.get_paginator("scan").paginate(TableName=self.name)
        return {item["id"]["S"]: item for page in pages for item in page["Items"]}

    def shards(self) -> list[Any]:
        return list_shards(self.clients, self.stream_arn)

    def records(self) -> list[Any]:
        """Return every record, parents before children."""
        return [
            record
            for shard in self.shards()
            for record in read_shard(self.clients, self.stream_arn, shard["ShardId"])
        ]


def create_table(clients: Clients, name: str, view: Any = "NEW_AND_OLD_IMAGES") -> Table:
    answer = clients.dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": view},
    )
    return Table(name, answer["TableDescription"]["LatestStreamArn"], clients)


def list_shards(clients: Clients, arn: str, **request: Any) -> list[Any]:
    shards: list[Any] = []
    while True:
        answer = clients.streams.describe_stream(StreamArn=arn, **request)["StreamDescription"]
        shards.extend(answer["Shards"])
        if "LastEvaluatedShardId" not in answer:
            return shards
        request["ExclusiveStartShardId"] = answer["LastEvaluatedShardId"]


def iterator(
    clients: Clients, arn: str, shard_id: str, kind: Any = "TRIM_HORIZON", **request: Any
) -> str:
    answer = clients.streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard_id, ShardIteratorType=kind, **request
    )
    return str(answer["ShardIterator"])


def read_from(clients: Clients, start: str, **request: Any) -> list[Any]:
    """Read from an iterator to the shard's end, or to an empty page of an open shard."""
    found: list[Any] = []
    following: str | None = start
    while following is not None:
        page = clients.streams.get_records(ShardIterator=following, **request)
        found.extend(page["Records"])
        following = page.get("NextShardIterator")
        if not page["Records"]:
            break
    return found


def read_shard(clients: Clients, arn: str, shard_id: str) -> list[Any]:
    return read_from(clients, iterator(clients, arn, shard_id))


def error_code(error: Any) -> str:
    return str(error.value.response["Error"]["Code"])
