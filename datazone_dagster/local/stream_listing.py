"""Listings of streams and shards: ListStreams, DescribeStream."""

from __future__ import annotations

import sqlite3

import msgspec

from datazone_dagster.local.keys import KeySchema
from datazone_dagster.local.service import (
    Body,
    Call,
    choice,
    member,
    optional_integer,
    optional_text,
    text,
)
from datazone_dagster.local.service_errors import not_found
from datazone_dagster.local.stream_log import roll_aged_shards
from datazone_dagster.local.trimming import RETENTION_SECONDS, trim_aged
from datazone_dagster.model.service_limits import SHARDS_PER_PAGE


def find_stream(call: Call, arn: str) -> sqlite3.Row:
    """Return a stream that is enabled, or was within the last 24 hours.

    Raises:
        ServiceError: `ResourceNotFoundException`.
    """
    row: sqlite3.Row | None = call.db.execute(
        "SELECT * FROM streams WHERE arn = ?", (arn,)
    ).fetchone()
    if row is None or not _readable(call, row):
        raise not_found(f"Requested resource not found: Stream: {arn} not found")
    return row


def _readable(call: Call, stream: sqlite3.Row) -> bool:
    disabled_at: float | None = stream["disabled_at"]
    return disabled_at is None or call.clock.now() - disabled_at <= RETENTION_SECONDS


def list_streams(call: Call, body: Body) -> Body:
    """`ListStreams`: by table, oldest first, including readable streams of deleted tables."""
    limit = optional_integer(body, "Limit", 1, SHARDS_PER_PAGE) or SHARDS_PER_PAGE
    table = optional_text(body, "TableName")
    start = optional_text(body, "ExclusiveStartStreamArn")
    rows = call.db.execute("SELECT * FROM streams ORDER BY table_name, number").fetchall()
    found = [row for row in rows if _readable(call, row) and table in (None, row["table_name"])]
    if start is not None:
        arns = [row["arn"] for row in found]
        found = found[arns.index(start) + 1 :] if start in arns else []
    answer: Body = {
        "Streams": [
            {"StreamArn": row["arn"], "TableName": row["table_name"], "StreamLabel": row["label"]}
            for row in found[:limit]
        ]
    }
    if len(found) > limit:
        answer["LastEvaluatedStreamArn"] = found[limit - 1]["arn"]
    return answer


def describe_stream(call: Call, body: Body) -> Body:
    """`DescribeStream`: shards in creation order, 100 a page, or the children of one shard."""
    stream = find_stream(call, text(body, "StreamArn"))
    trim_aged(call)
    if stream["disabled_at"] is None:
        roll_aged_shards(call, stream["number"])
    limit = optional_integer(body, "Limit", 1, SHARDS_PER_PAGE) or SHARDS_PER_PAGE
    start = optional_text(body, "ExclusiveStartShardId") or ""
    parent = _parent_wanted(body)
    rows = call.db.execute(
        "SELECT * FROM shards WHERE stream = ? AND dropped = 0 AND shard_id > ?"
        " AND (? IS NULL OR parent_id = ?) ORDER BY shard_id LIMIT ?",
        (stream["number"], start, parent, parent, limit + 1),
    ).fetchall()
    schema = msgspec.json.decode(stream["key_schema"], type=KeySchema)
    description: Body = {
        "StreamArn": stream["arn"],
        "StreamLabel": stream["label"],
        "StreamStatus": "ENABLED" if stream["disabled_at"] is None else "DISABLED",
        "StreamViewType": stream["view_type"],
        "CreationRequestDateTime": stream["created_at"],
        "TableName": stream["table_name"],
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(schema.names, ("HASH", "RANGE"), strict=False)
        ],
        "Shards": [described_shard(row) for row in rows[:limit]],
    }
    if len(rows) > limit:
        description["LastEvaluatedShardId"] = rows[limit - 1]["shard_id"]
    return {"StreamDescription": description}


def _parent_wanted(body: Body) -> str | None:
    shard_filter = member(body, "ShardFilter")
    if not shard_filter:
        return None
    choice(shard_filter, "Type", ("CHILD_SHARDS",))
    return text(shard_filter, "ShardId")


def described_shard(row: sqlite3.Row) -> Body:
    """Return a shard as DescribeStream shows it."""
    numbers = {"StartingSequenceNumber": str(int(row["starting"]))}
    if row["ending"] is not None:
        numbers["EndingSequenceNumber"] = str(int(row["ending"]))
    shard: Body = {"ShardId": row["shard_id"], "SequenceNumberRange": numbers}
    if row["parent_id"] is not None:
        shard["ParentShardId"] = row["parent_id"]
    return shard
