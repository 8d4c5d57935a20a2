"""Items scanned and landed per second, against a parallel scan by boto3 that only counts.

    python -m benchmarks.snapshot [items]

The server answers from memory, so neither the network nor DynamoDB is measured. Ours parses the
pages, writes the rows to the change log and commits them with the resume keys. The peer is the
usual script: a thread per segment, boto3's client, `len(page["Items"])`.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3

from benchmarks.measure import Measured, command_line, in_child, markdown, measuring, write
from benchmarks.server import TABLE, answering
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    ConnectionSettings,
    connect_table,
    drain_once,
    snapshot_source,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

OURS = "snapshot: scanned, landed, committed"
PEER = "boto3, 8 segments, counted only"
DEFAULT_RECORDS = 500_000
REGION = "us-west-2"
SEGMENTS = 8
PAGE_BYTES = 1 << 20
SOURCE = DynamoDBSource(TABLE, region=REGION)


class Items:
    """Pages of a table of equal items, 1 MB each. A key of a page says how many are left."""

    def __init__(self, items: int) -> None:
        self._page_items = PAGE_BYTES // len(_item(0))
        self.pages = -(-items // self._page_items)

    @property
    def count(self) -> int:
        """Number of items of the table."""
        return self.pages * self._page_items

    @cached_property
    def _text(self) -> str:
        return ",".join(_item(number) for number in range(self._page_items))

    def answer(self, operation: str, asked: dict[str, Any]) -> bytes:
        """Answer Scan and DescribeTable."""
        if operation == "describetable":
            return json.dumps({"Table": self._description()}).encode()
        assert operation == "scan", operation
        segment, segments = asked["Segment"], asked["TotalSegments"]
        start = asked.get("ExclusiveStartKey")
        page = segment if start is None else int(start["id"]["S"])
        if page >= self.pages:
            return b'{"Count":0,"Items":[],"ScannedCount":0}'
        last = f'"LastEvaluatedKey":{{"id":{{"S":"{page + segments}"}}}},'
        units = PAGE_BYTES // 4096
        return (
            f'{{"ConsumedCapacity":{{"CapacityUnits":{units}.0,"TableName":"{TABLE}"}},{last}'
            f'"Count":{self._page_items},"ScannedCount":{self._page_items},"Items":[{self._text}]}}'
        ).encode()

    def _description(self) -> dict[str, Any]:
        return {
            "TableName": TABLE,
            "TableArn": f"arn:aws:dynamodb:{REGION}:000000000000:table/{TABLE}",
            "TableId": "0",
            "TableStatus": "ACTIVE",
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "ItemCount": self.count,
            "TableSizeBytes": self.pages * PAGE_BYTES,
        }


def _item(number: int) -> str:
    return (
        f'{{"id":{{"S":"order-{number:012d}"}},"status":{{"S":"PLACED"}},'
        f'"total":{{"N":"{number}.25"}},"paid":{{"BOOL":true}},"note":{{"S":"{"n" * 300}"}},'
        '"address":{"M":{"city":{"S":"Lisbon"},"zip":{"S":"1100-148"}}},'
        '"lines":{"L":[{"M":{"sku":{"S":"A-1"},"qty":{"N":"2"}}}]}}'
    )


@contextmanager
def serving(items: int) -> Iterator[str]:
    """Run the server in a process of its own and yield its endpoint URL."""
    command = [sys.executable, "-m", "benchmarks.snapshot", "--serve", str(items)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def snapshot(url: str, layout: Layout, measured: Measured) -> int:
    """Take a snapshot up to the last page; only the scan is measured."""
    now = [datetime.now(timezone.utc)]
    stream = ScriptedStream(TABLE, clock=lambda: now[0])
    table = connect_table(TABLE, ConnectionSettings(endpoint_url=url, region=REGION))
    drain_once(SOURCE, stream, layout, clock=lambda: now[0])
    snapshot_source(SOURCE, layout, table, clock=lambda: now[0])
    now[0] += timedelta(minutes=2)
    drain_once(SOURCE, stream, layout, clock=lambda: now[0])
    with measuring(measured):
        return snapshot_source(SOURCE, layout, table, clock=lambda: now[0]).rows


def counted(url: str) -> int:
    """Count the items as the usual script does."""
    client = boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )

    def count(segment: int) -> int:
        pages = client.get_paginator("scan").paginate(
            TableName=TABLE, Segment=segment, TotalSegments=SEGMENTS, ConsistentRead=True
        )
        return sum(len(page["Items"]) for page in pages)

    with ThreadPoolExecutor(SEGMENTS) as pool:
        return sum(pool.map(count, range(SEGMENTS)))


def child(variant: str, items: Path) -> Measured:
    measured = Measured(variant)
    with (
        serving(int(str(items))) as url,
        tempfile.TemporaryDirectory(prefix="bench-snapshot-") as root,
    ):
        if variant == OURS:
            measured.records = snapshot(url, Layout(root), measured)
        else:
            with measuring(measured):
                measured.records = counted(url)
    expected = Items(int(str(items))).count
    assert measured.records == expected, f"{measured.records} items of {expected}"
    return measured


def main(results: Path, _: Path, records: int = DEFAULT_RECORDS) -> list[Measured]:
    rows = [in_child("benchmarks.snapshot", one, str(records)) for one in (OURS, PEER)]
    write(results, "snapshot", rows, markdown("Scan of a table, one process", rows, PEER))
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        asyncio.run(answering(Items(int(sys.argv[2])).answer))
    else:
        command_line(child, main, DEFAULT_RECORDS)
