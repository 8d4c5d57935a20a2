"""A table, its Kinesis stream and datasets of every mode, on the local DynamoDB."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.local import AdminClient, LocalDynamoDB
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import DrainReport, RedriveReport
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    read_dataset,
    redrive_dataset,
    snapshot_source,
)
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.kinesis_client import KinesisStreamClient
from datazone_dagster.source.read_pace import ReadPace
from datazone_dagster.source.session import (
    ConnectionSettings,
    build_clients,
    build_kinesis_clients,
)
from datazone_dagster.source.table_client import BotoTableClient
from datazone_dagster.sources import DynamoDBSource, KinesisSource

FIRST = datetime.min.replace(tzinfo=timezone.utc)
LAST = datetime.max.replace(tzinfo=timezone.utc)


class Service:
    """The local DynamoDB with clients that many flows share."""

    def __init__(self, server: LocalDynamoDB) -> None:
        settings = ConnectionSettings(
            region="us-west-2",
            endpoint_url=server.endpoint_url,
            aws_access_key_id="k",
            aws_secret_access_key="s",
        )
        self.clients = build_clients(settings)
        self.kinesis_clients = build_kinesis_clients(settings)
        self.dynamodb: Any = self.clients.dynamodb
        self.kinesis: Any = self.kinesis_clients.kinesis
        self.admin: AdminClient = server.admin


@dataclass
class Flow:
    """One table that sends its changes to one Kinesis stream, and what is made of them."""

    service: Service
    layout: Layout
    start: Any = "trim_horizon"
    precision: str = "MICROSECOND"
    shards: int = 1
    clock_behind: timedelta = timedelta(0)
    table: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:10]}")

    def __post_init__(self) -> None:
        self.create_table()
        self.service.kinesis.create_stream(StreamName=self.table, ShardCount=self.shards)
        self.enable()
        self.source: DynamoDBSource = KinesisSource(
            self.table, self.table, name="orders", start=self.start
        )
        self.new_process()

    def create_table(self) -> None:
        self.service.dynamodb.create_table(
            TableName=self.table,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )

    @property
    def arn(self) -> str:
        found = self.service.kinesis.describe_stream_summary(StreamName=self.table)
        return str(found["StreamDescriptionSummary"]["StreamARN"])

    def enable(self) -> None:
        self.service.dynamodb.enable_kinesis_streaming_destination(
            TableName=self.table,
            StreamArn=self.arn,
            EnableKinesisStreamingConfiguration={
                "ApproximateCreationDateTimePrecision": self.precision
            },
        )

    def disable(self) -> None:
        self.service.dynamodb.disable_kinesis_streaming_destination(
            TableName=self.table, StreamArn=self.arn
        )

    def new_process(self) -> None:
        """Forget iterators and known changes, as a new process does."""
        pace = ReadPace(pause=lambda _: None)
        self.client: Any = KinesisStreamClient(
            self.table, self.table, self.service.kinesis_clients, pace=pace
        )

    def switch_to_the_stream_of_the_table(self) -> None:
        self.client = BotoStreamClient(self.table, self.service.clients)
        self.source = DynamoDBSource(self.table, name="orders", start=self.start)

    def put(self, item_id: str, n: int) -> None:
        self.service.dynamodb.put_item(
            TableName=self.table, Item={"id": {"S": item_id}, "n": {"N": str(n)}}
        )

    def delete(self, item_id: str) -> None:
        self.service.dynamodb.delete_item(TableName=self.table, Key={"id": {"S": item_id}})

    def hold(self) -> None:
        self.service.admin.hold_kinesis(self.table)

    def deliver(self, order: Sequence[int] | None = None) -> None:
        self.service.admin.deliver_kinesis(self.table, order)

    def again(self, number: int) -> None:
        """Let the record of this number, of the first shard, come once more."""
        shard_id = self.open_shards()[0]["ShardId"]
        iterator = self.service.kinesis.get_shard_iterator(
            StreamName=self.table, ShardId=shard_id, ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        record = self.service.kinesis.get_records(ShardIterator=iterator)["Records"][number]
        self.service.kinesis.put_record(
            StreamName=self.table, PartitionKey=record["PartitionKey"], Data=record["Data"]
        )

    def open_shards(self) -> list[Any]:
        shards = self.service.kinesis.list_shards(StreamName=self.table)["Shards"]
        found = [one for one in shards if "EndingSequenceNumber" not in one["SequenceNumberRange"]]
        return sorted(found, key=lambda one: int(one["HashKeyRange"]["StartingHashKey"]))

    def split(self) -> None:
        shard = self.open_shards()[0]
        bounds = shard["HashKeyRange"]
        middle = (int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"]) + 1) // 2
        self.service.kinesis.split_shard(
            StreamName=self.table,
            ShardToSplit=shard["ShardId"],
            NewStartingHashKey=str(middle),
        )

    def merge(self) -> None:
        first, second = self.open_shards()[:2]
        self.service.kinesis.merge_shards(
            StreamName=self.table,
            ShardToMerge=first["ShardId"],
            AdjacentShardToMerge=second["ShardId"],
        )

    def now(self) -> datetime:
        """Return the time of the machine, which may be behind the service."""
        served = datetime.fromtimestamp(self.service.admin.now(), timezone.utc)
        return served - self.clock_behind

    def drain(self) -> DrainReport:
        return drain_once(self.source, self.client, self.layout, clock=self.now)

    def drain_all(self) -> list[DrainReport]:
        """Drain until nothing is left: a child is read after its parents' ends are committed."""
        reports = [self.drain()]
        while not reports[-1].caught_up:
            reports.append(self.drain())
            assert len(reports) < 20
        return reports

    def snapshot(self) -> SnapshotReport:
        """Take the snapshot as far as it goes now."""
        table = BotoTableClient(self.table, self.service.clients)
        return snapshot_source(self.source, self.layout, table, clock=self.now)

    def transform(self, mode: Any) -> Transform:
        """Return a transform into a dataset of this mode."""

        @transform(
            name=f"make_rows_{mode}",
            input_mapping={"changes": Input(Stream(source=self.source))},
            output_mapping={"rows": Output(Dataset(id=f"rows_{mode}", mode=mode))},
        )
        def rows(changes: Any) -> Any:
            return changes.select(
                "eventID", "dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N as n"
            )

        return rows

    def apply(self, *modes: str) -> None:
        for mode in modes or ("merge", "append", "history"):
            apply_transform(self.transform(mode), self.layout)

    def redrive(self, mode: str) -> RedriveReport:
        return redrive_dataset(self.transform(mode), f"rows_{mode}", self.layout)

    def rows(self, mode: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = read_dataset(self.layout, f"rows_{mode}").to_pylist()
        return found

    def current(self) -> dict[str, str]:
        return {row["id"]: row["n"] for row in self.rows("merge")}

    def items(self) -> dict[str, str]:
        found = self.service.dynamodb.scan(TableName=self.table, ConsistentRead=True)["Items"]
        return {item["id"]["S"]: item["n"]["N"] for item in found}

    def log_rows(self) -> pa.Table:
        log = ChangeLog(self.layout, "orders").open()
        assert log is not None
        names = [Log.EVENT_ID, Log.VERSION, Log.KEYS, Log.SHARD_ID, Log.REASON, Log.EVENT_NAME]
        return pa.concat_tables(log.rows_of_time(FIRST, LAST, names))

    def landed(self) -> Counter[str]:
        return Counter(self.log_rows()[Log.EVENT_ID].to_pylist())


def layout_in(folder: Path) -> Layout:
    return Layout(str(folder / "lakehouse"))
