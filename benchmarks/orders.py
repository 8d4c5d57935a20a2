"""Published example, and the script that people write instead of it."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.drain import boto_parser
from benchmarks.stream import PagesStream
from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.frame.frame import Frame
from datazone_dagster.source.wire import parse_page
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource(table_name="orders", region="us-west-2", stream_enabled=True)
DATASET = "processed_orders"


@transform(
    input_mapping={"orders_stream": Input(Stream(source=SOURCE))},
    output_mapping={DATASET: Output(Dataset(id=DATASET, tags=["orders", "real-time"]))},
)
def process_orders_stream(orders_stream: Frame) -> Frame:
    return orders_stream.select(
        "eventID",
        "eventName",
        "dynamodb.NewImage.orderId.S as order_id",
        "dynamodb.NewImage.customerEmail.S as customer_email",
        "dynamodb.NewImage.orderTotal.N as order_total",
        "dynamodb.NewImage.status.S as status",
    )


PEER_SCHEMA = pa.schema(
    [
        ("eventID", pa.string()),
        ("eventName", pa.string()),
        ("order_id", pa.string()),
        ("customer_email", pa.string()),
        ("order_total", pa.decimal128(18, 2)),
        ("status", pa.string()),
    ]
)
PEER_MERGE_RECORDS = 20_000


def peer(pages: Path, uri: str) -> int:
    """Merge pages by boto3's parser, TypeDeserializer, pyarrow and delta-rs MERGE, as scripts do.

    The peer does less: no version columns, no tombstones, no change log. Returns the number of
    records.
    """
    from boto3.dynamodb.types import TypeDeserializer
    from deltalake import DeltaTable

    parse, read = boto_parser(), TypeDeserializer().deserialize
    table = DeltaTable.create(uri, PEER_SCHEMA)
    pending: dict[str, dict[str, Any] | None] = {}
    records = waiting = 0
    for body in PagesStream(pages, parse_page).bodies():
        for record in parse(body)["Records"]:
            key = read(record["dynamodb"]["Keys"]["orderId"])
            image = record["dynamodb"].get("NewImage")
            pending[key] = None if image is None else _row(record, image, read)
            records += 1
            waiting += 1
        if waiting >= PEER_MERGE_RECORDS:
            _merge(table, pending)
            pending, waiting = {}, 0
    _merge(table, pending)
    return records


def _row(record: dict[str, Any], image: dict[str, Any], read: Any) -> dict[str, Any]:
    item = {name: read(value) for name, value in image.items()}
    return {
        "eventID": record["eventID"],
        "eventName": record["eventName"],
        "order_id": item["orderId"],
        "customer_email": item["customerEmail"],
        "order_total": Decimal(item["orderTotal"]),
        "status": item["status"],
    }


def _merge(table: Any, pending: dict[str, dict[str, Any] | None]) -> None:
    def merged(rows: Iterable[dict[str, Any]]) -> Any:
        return table.merge(
            pa.Table.from_pylist(list(rows), PEER_SCHEMA),
            predicate="t.order_id = s.order_id",
            source_alias="s",
            target_alias="t",
        )

    rows = [row for row in pending.values() if row is not None]
    if rows:
        merged(rows).when_matched_update_all().when_not_matched_insert_all().execute()
    gone = [{"order_id": key} for key, row in pending.items() if row is None]
    if gone:
        merged(gone).when_matched_delete().execute()
