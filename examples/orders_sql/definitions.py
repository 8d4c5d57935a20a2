"""Orders as a dataset, and a report by SQL that follows it."""

import os
from datetime import timedelta
from pathlib import Path

import duckdb
from dagster import Definitions, MaterializeResult, asset

from datazone_dagster import (
    Dataset,
    Input,
    Output,
    Stream,
    build_definitions,
    on_applied,
    transform,
)
from datazone_dagster.frame import Frame
from datazone_dagster.sources import DynamoDBSource

SQL = Path(__file__).parent / "daily_revenue.sql"


@transform(
    input_mapping={"changes": Input(Stream(source=DynamoDBSource("orders", region="eu-west-1")))},
    output_mapping={"orders": Output(Dataset("orders"))},
)
def current_orders(changes: Frame) -> Frame:
    """Every order as it is now."""
    return changes.select(
        "dynamodb.Keys.orderId.S as order_id",
        "dynamodb.NewImage.status.S as status",
        "cast(dynamodb.NewImage.placedAt.S as timestamp) as placed_at",
        "cast(dynamodb.NewImage.total.N as decimal(12, 2)) as total",
    )


@asset(automation_condition=on_applied(every=timedelta(minutes=5)), group_name="reports")
def daily_revenue(orders: duckdb.DuckDBPyRelation) -> MaterializeResult[None]:
    """Revenue of each day, of all orders that were not cancelled."""
    report = orders.query("orders", SQL.read_text("utf-8"))
    assert report is not None  # it is a SELECT
    folder = Path(os.environ.get("REPORTS", "reports"))
    folder.mkdir(exist_ok=True)
    report.write_parquet(str(folder / "daily_revenue.parquet"))
    return MaterializeResult(metadata={"days": len(report)})


defs = Definitions.merge(build_definitions([current_orders]), Definitions(assets=[daily_revenue]))
