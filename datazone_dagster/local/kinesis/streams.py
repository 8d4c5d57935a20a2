"""Kinesis streams: create, describe, delete, retention."""

from __future__ import annotations

import re
import sqlite3

from datazone_dagster.local.kinesis.shards import open_first_shards, open_shards
from datazone_dagster.local.service import (
    ACCOUNT_ID,
    Body,
    Call,
    optional_integer,
    optional_text,
    text,
)
from datazone_dagster.local.service_errors import ServiceError, in_use, not_found

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_FIRST_RETENTION_HOURS = 24
_LONGEST_RETENTION_HOURS = 8760


def stream_arn(region: str, name: str) -> str:
    """Return the ARN of a stream. A stream that is created again has the same one."""
    return f"arn:aws:kinesis:{region}:{ACCOUNT_ID}:stream/{name}"


def create_stream(call: Call, body: Body) -> Body:
    """`CreateStream`: active at once."""
    name = text(body, "StreamName")
    if not _NAME.fullmatch(name):
        raise invalid(f"Invalid stream name {name!r}")
    if call.db.execute("SELECT 1 FROM kinesis_streams WHERE name = ?", (name,)).fetchone():
        raise in_use(f"Stream {name} under account {ACCOUNT_ID} already exists.")
    count = optional_integer(body, "ShardCount", 1, 500) or call.settings.initial_shards
    cursor = call.db.execute(
        "INSERT INTO kinesis_streams (name, region, created_at, retention_hours)"
        " VALUES (?, ?, ?, ?)",
        (name, call.region, call.clock.now(), _FIRST_RETENTION_HOURS),
    )
    open_first_shards(call, int(cursor.lastrowid or 0), count)
    return {}


def delete_stream(call: Call, body: Body) -> Body:
    """`DeleteStream`: gone at once, with its records."""
    stream = find_stream(call, body)
    call.db.execute(
        "DELETE FROM kinesis_records WHERE shard IN"
        " (SELECT number FROM kinesis_shards WHERE stream = ?)",
        (stream["number"],),
    )
    for table in ("kinesis_shards", "kinesis_held"):
        call.db.execute(f"DELETE FROM {table} WHERE stream = ?", (stream["number"],))  # noqa: S608 - fixed names
    call.db.execute("DELETE FROM kinesis_streams WHERE number = ?", (stream["number"],))
    return {}


def describe_stream_summary(call: Call, body: Body) -> Body:
    """`DescribeStreamSummary`."""
    stream = find_stream(call, body)
    return {
        "StreamDescriptionSummary": {
            "StreamName": stream["name"],
            "StreamARN": stream_arn(stream["region"], stream["name"]),
            "StreamStatus": "ACTIVE",
            "StreamModeDetails": {"StreamMode": "PROVISIONED"},
            "RetentionPeriodHours": stream["retention_hours"],
            "StreamCreationTimestamp": stream["created_at"],
            "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
            "EncryptionType": "NONE",
            "OpenShardCount": len(open_shards(call, stream["number"])),
            "ConsumerCount": 0,
        }
    }


def change_retention(call: Call, body: Body) -> Body:
    """`IncreaseStreamRetentionPeriod` and `DecreaseStreamRetentionPeriod`."""
    stream = find_stream(call, body)
    hours = optional_integer(
        body, "RetentionPeriodHours", _FIRST_RETENTION_HOURS, _LONGEST_RETENTION_HOURS
    )
    call.db.execute(
        "UPDATE kinesis_streams SET retention_hours = ? WHERE number = ?",
        (hours or _FIRST_RETENTION_HOURS, stream["number"]),
    )
    return {}


def find_stream(call: Call, body: Body) -> sqlite3.Row:
    """Return the stream that a request names, by its name or its ARN.

    Raises:
        ServiceError: `ResourceNotFoundException`.
    """
    arn = optional_text(body, "StreamARN")
    name = text(body, "StreamName") if arn is None else arn.rpartition("/")[2]
    row: sqlite3.Row | None = call.db.execute(
        "SELECT * FROM kinesis_streams WHERE name = ?", (name,)
    ).fetchone()
    if row is None or (arn is not None and arn != stream_arn(row["region"], name)):
        raise not_found(f"Stream {name} under account {ACCOUNT_ID} not found.")
    return row


def invalid(message: str) -> ServiceError:
    """Return the error of Kinesis for an argument that is not valid."""
    return ServiceError("InvalidArgumentException", message)
