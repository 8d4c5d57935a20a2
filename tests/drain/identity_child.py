"""Another process on the same lakehouse: drains or applies once, and sends what happened."""

from __future__ import annotations

import logging
import os
from multiprocessing.connection import Connection

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.errors import DatazoneError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    ConnectionSettings,
    apply_transform,
    connect,
    drain_once,
    open_gaps,
)
from datazone_dagster.sources import DynamoDBSource


def transform_of(source: DynamoDBSource, dataset_id: str) -> Transform:
    @transform(
        input_mapping={"orders": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset(id=dataset_id))},
    )
    def orders_of_a_location(orders: Frame) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.at.S as at")

    return orders_of_a_location


def main(uri: str, action: str, dataset_id: str, options: dict[str, str]) -> dict[str, object]:
    endpoint_url = options.pop("connect_to")
    region = options.pop("connect_in", options.get("region", "us-east-1"))
    source, layout = DynamoDBSource(**options), Layout(uri)  # type: ignore[arg-type]  # JSON
    if action == "drain":
        settings = ConnectionSettings(region=region, endpoint_url=endpoint_url)
        report = drain_once(source, connect(source.table_name, settings), layout)
        return {"records": report.records, "gaps": len(open_gaps(source.name, layout))}
    (applied,) = apply_transform(transform_of(source, dataset_id), layout).values()
    return {"rows": applied.row_count, "position": applied.position}


def answer(sender: Connection, uri: str, action: str, dataset_id: str, **options: str) -> None:
    """Do it, and send what happened, or the error, as its class and its text."""
    logging.disable(logging.CRITICAL)
    os.environ.update(AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s")
    try:
        sender.send(main(uri, action, dataset_id, options))
    except DatazoneError as error:
        sender.send({"error": type(error).__name__, "text": str(error)})
