"""Operations of Kinesis by their names. Those of one stream take it by its name or its ARN."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from datazone_dagster.local.kinesis import delivery, reads, shards, streams
from datazone_dagster.local.service import Body, Call, optional_text
from datazone_dagster.local.stream_reads import RecordsPage

TARGET = "Kinesis_20131202"

_OfStream = Callable[[Call, sqlite3.Row, Body], Body]


def _of_stream(operation: _OfStream) -> Callable[[Call, Body], Body]:
    def carry_out(call: Call, body: Body) -> Body:
        return operation(call, streams.find_stream(call, body), body)

    return carry_out


def _list_shards(call: Call, body: Body) -> Body:
    token = optional_text(body, "NextToken")
    if token is not None:
        name, _, shard_id = token.rpartition("|")
        body = {**body, "StreamName": name, "ExclusiveStartShardId": shard_id}
    stream = streams.find_stream(call, body)
    reads.trim_aged(call, stream)
    return shards.list_shards(call, stream, body)


OPERATIONS: dict[str, Callable[[Call, Body], Body | RecordsPage]] = {
    "CreateStream": streams.create_stream,
    "DeleteStream": streams.delete_stream,
    "DescribeStreamSummary": streams.describe_stream_summary,
    "IncreaseStreamRetentionPeriod": streams.change_retention,
    "DecreaseStreamRetentionPeriod": streams.change_retention,
    "ListShards": _list_shards,
    "SplitShard": _of_stream(shards.split_shard),
    "MergeShards": _of_stream(shards.merge_shards),
    "GetShardIterator": _of_stream(reads.get_shard_iterator),
    "GetRecords": reads.get_records,
    "PutRecord": _of_stream(delivery.put_record),
}
