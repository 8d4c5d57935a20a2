"""Pages of items: Scan (with parallel segments) and Query by key."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

from datazone_dagster.local import history
from datazone_dagster.local.expressions.conditions import Condition, condition
from datazone_dagster.local.expressions.projections import project, projection
from datazone_dagster.local.expressions.tokens import Placeholders
from datazone_dagster.local.items import placeholders_of
from datazone_dagster.local.key_conditions import partition_value
from datazone_dagster.local.keys import (
    HASH_SPACE,
    StoredKey,
    key_of_request,
    partition_hash,
)
from datazone_dagster.local.rows import decode_item
from datazone_dagster.local.service import (
    Body,
    Call,
    choice,
    optional_integer,
    optional_text,
    refuse,
    text,
)
from datazone_dagster.local.service_errors import validation
from datazone_dagster.local.tables import Table, find_table
from datazone_dagster.local.throughput import read_capacity
from datazone_dagster.local.values import Item, checked_item, sort_bytes

PAGE_BYTES = 1024 * 1024
_LEGACY = ("ScanFilter", "QueryFilter", "KeyConditions", "ConditionalOperator", "AttributesToGet")
_SEGMENTS_MAX = 1_000_000


def scan(call: Call, body: Body) -> Body:
    """`Scan`: in order of the partition key's hash, so a segment is a range of hashes."""
    refuse(body, *_LEGACY, "IndexName")
    table = find_table(call, text(body, "TableName"))
    low, high = _segment(body)
    start = _start_key(table, body) or history.BEGINNING
    after = history.as_of(call, table, body)
    rows = history.rows(call, table, after, low=low, high=high, start=start)
    return _page(call, table, body, rows, _Filter(body))


def _segment(body: Body) -> tuple[int, int]:
    total = optional_integer(body, "TotalSegments", 1, _SEGMENTS_MAX)
    segment = optional_integer(body, "Segment", 0, _SEGMENTS_MAX - 1)
    if (total is None) != (segment is None):
        raise validation("Segment and TotalSegments must be given together")
    if total is None or segment is None:
        return 0, HASH_SPACE
    if segment >= total:
        raise validation(
            "The Segment parameter is zero-based and must be less than parameter TotalSegments: "
            f"Segment: {segment} is not less than TotalSegments: {total}"
        )
    return HASH_SPACE * segment // total, HASH_SPACE * (segment + 1) // total


def query(call: Call, body: Body) -> Body:
    """`Query`: one partition, in ascending or descending order of the sort key."""
    refuse(body, *_LEGACY, "IndexName")
    table = find_table(call, text(body, "TableName"))
    wanted = _Filter(body)
    expression = text(body, "KeyConditionExpression")
    placeholders = wanted.placeholders
    on_key = condition(expression, "KeyConditionExpression", placeholders)
    partition = sort_bytes(partition_value(expression, table.schema, placeholders))
    placeholders.require_all_used()
    rows = _partition(call, table, body, partition)
    matching = (row for row in rows if on_key(decode_item(row["item"])))
    return _page(call, table, body, matching, wanted)


def _partition(call: Call, table: Table, body: Body, partition: bytes) -> Iterable[sqlite3.Row]:
    """Return the rows of a partition behind the start key, in the order of the request."""
    forward = body.get("ScanIndexForward") is not False
    start = _start_key(table, body)
    hashed = partition_hash(partition)
    after = history.as_of(call, table, body)
    if after is not None:
        earlier = history.rows(call, table, after, low=hashed, high=hashed + 1)
        rows = [
            row
            for row in earlier
            if row["partition"] == partition
            and (start is None or _is_behind(row["sort"], start.sort, forward=forward))
        ]
        return rows if forward else reversed(rows)
    sign, order = (">", "ASC") if forward else ("<", "DESC")
    # Only two fixed words are inserted; every value is bound.
    sql = (
        "SELECT size_bytes, item FROM items WHERE table_number = ? AND hash = ?"  # noqa: S608 - see above
        f" AND partition = ?{f' AND sort {sign} ?' if start else ''} ORDER BY sort {order}"
    )
    bound: list[Any] = [table.number, hashed, partition]
    if start is not None:
        bound.append(start.sort)
    return call.db.execute(sql, bound)


def _is_behind(sort: bytes, start: bytes, *, forward: bool) -> bool:
    return sort > start if forward else sort < start


def _start_key(table: Table, body: Body) -> StoredKey | None:
    raw = body.get("ExclusiveStartKey")
    return None if raw is None else key_of_request(table.schema, checked_item(raw))


class _Filter:
    """FilterExpression, ProjectionExpression and Select of one request."""

    def __init__(self, body: Body) -> None:
        self.placeholders: Placeholders = placeholders_of(body)
        filter_text = optional_text(body, "FilterExpression")
        projection_text = optional_text(body, "ProjectionExpression")
        self.matches: Condition = lambda _item: True
        if filter_text is not None:
            self.matches = condition(filter_text, "FilterExpression", self.placeholders)
        self.paths = None
        if projection_text is not None:
            self.paths = projection(projection_text, self.placeholders)
        if "KeyConditionExpression" not in body:
            self.placeholders.require_all_used()
        allowed = ("ALL_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT")
        self.count_only = choice(body, "Select", allowed, "ALL_ATTRIBUTES") == "COUNT"


def _page(
    call: Call, table: Table, body: Body, rows: Iterable[sqlite3.Row], wanted: _Filter
) -> Body:
    """Return at most Limit items or 1 MB, both before the filter, as the service does."""
    limit = optional_integer(body, "Limit", 1)
    scanned = size_bytes = 0
    matching: list[Item] = []
    last: Item | None = None
    for row in rows:
        item = decode_item(row["item"])
        scanned += 1
        size_bytes += row["size_bytes"]
        if wanted.matches(item):
            matching.append(item)
        if scanned == limit or size_bytes >= PAGE_BYTES:
            last = item
            break
    capacity = read_capacity(call, body, table, size_bytes)
    answer = {"Count": len(matching), "ScannedCount": scanned, **capacity}
    if not wanted.count_only:
        paths = wanted.paths
        answer["Items"] = matching if paths is None else [project(item, paths) for item in matching]
    if last is not None:
        answer["LastEvaluatedKey"] = table.schema.of(last)
    return answer
