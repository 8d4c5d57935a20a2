"""Kinesis streams as destinations of a table's changes: calls of DynamoDB."""

from __future__ import annotations

import msgspec

from datazone_dagster.local.kinesis.streams import find_stream
from datazone_dagster.local.service import Body, Call, choice, member, text
from datazone_dagster.local.service_errors import in_use, validation
from datazone_dagster.local.tables import Table, described_table, save_table

_PRECISION = "ApproximateCreationDateTimePrecision"
_PRECISIONS = ("MILLISECOND", "MICROSECOND")


def enable(call: Call, body: Body) -> Body:
    """`EnableKinesisStreamingDestination`: active at once."""
    table = described_table(call, text(body, "TableName"))
    arn = text(body, "StreamArn")
    find_stream(call, {"StreamARN": arn})
    if table.kinesis_arn is not None and table.kinesis_status == "ACTIVE":
        raise in_use(f"Table {table.name} already has a Kinesis streaming destination")
    wanted = member(body, "EnableKinesisStreamingConfiguration")
    precision = choice(wanted, _PRECISION, _PRECISIONS, "MILLISECOND")
    return _saved(call, table, arn, "ACTIVE", precision, "ENABLING")


def disable(call: Call, body: Body) -> Body:
    """`DisableKinesisStreamingDestination`: changes made from now on are recorded nowhere."""
    table = described_table(call, text(body, "TableName"))
    arn = _require_destination(table, text(body, "StreamArn"))
    return _saved(call, table, arn, "DISABLED", table.kinesis_precision, "DISABLING")


def update(call: Call, body: Body) -> Body:
    """`UpdateKinesisStreamingDestination`: another precision from now on."""
    table = described_table(call, text(body, "TableName"))
    arn = _require_destination(table, text(body, "StreamArn"))
    wanted = member(body, "UpdateKinesisStreamingConfiguration")
    return _saved(call, table, arn, "ACTIVE", choice(wanted, _PRECISION, _PRECISIONS), "UPDATING")


def describe(call: Call, body: Body) -> Body:
    """`DescribeKinesisStreamingDestination`."""
    table = described_table(call, text(body, "TableName"))
    found = []
    if table.kinesis_arn is not None:
        found = [
            {
                "StreamArn": table.kinesis_arn,
                "DestinationStatus": table.kinesis_status,
                _PRECISION: table.kinesis_precision,
            }
        ]
    return {"TableName": table.name, "KinesisDataStreamDestinations": found}


def _require_destination(table: Table, arn: str) -> str:
    if table.kinesis_arn != arn or table.kinesis_status != "ACTIVE":
        raise validation(f"Table {table.name} has no active Kinesis streaming destination {arn}")
    return arn


def _saved(call: Call, table: Table, arn: str, status: str, precision: str, answered: str) -> Body:
    save_table(
        call,
        msgspec.structs.replace(
            table, kinesis_arn=arn, kinesis_status=status, kinesis_precision=precision
        ),
    )
    return {
        "TableName": table.name,
        "StreamArn": arn,
        "DestinationStatus": answered,
        "EnableKinesisStreamingConfiguration": {_PRECISION: precision},
    }
