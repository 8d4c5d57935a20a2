"""Bytes to committed change log: ours against boto3's parser, in the same run.

    python -m benchmarks.drain [records]

Bodies come from files, so the network is not measured. Everything else of a drain is: plan,
threads, parsing, Arrow, Parquet, Delta commits, checkpoint. Both ways append the same rows.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    Measured,
    Stages,
    command_line,
    in_child,
    markdown,
    measuring,
    repeated,
    write,
)
from benchmarks.pages import Workload, generated
from benchmarks.server import serving
from benchmarks.stream import PagesStream
from datazone_dagster.changelog import batch_writer
from datazone_dagster.changelog import log as change_log
from datazone_dagster.changelog import schema as change_log_schema
from datazone_dagster.changelog.checkpoints import CheckpointSnapshot, CheckpointTable
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.pipeline import drain_tick
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.parsed import page_from_parsed
from datazone_dagster.source.session import build_clients
from datazone_dagster.source.wire import parse_page
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource(table_name="orders", region="us-west-2")
RAW = "drain, raw pages"
HTTP = "drain, raw pages by boto3 over HTTP"
PARSED = "drain, boto3 parser"
PARSER = "boto3 parser alone"
SERVER = "pages read over HTTP, not parsed"
DEFAULT_RECORDS = 1_000_000


def boto_parser() -> Callable[[bytes], dict[str, Any]]:
    """Return boto3's parser of a GetRecords body."""
    import botocore.parsers
    import botocore.session

    model = botocore.session.get_session().get_service_model("dynamodbstreams")
    shape = model.operation_model("GetRecords").output_shape
    assert shape is not None
    parser = botocore.parsers.create_parser("json")
    headers = {"content-type": "application/x-amz-json-1.0"}

    def parse(body: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = parser.parse(
            {"status_code": 200, "headers": headers, "body": body}, shape
        )
        return answer

    return parse


def parsed_page() -> Callable[[bytes], RecordsPage]:
    """Return the parser that our client uses by `BotoStreamClient(..., raw_pages=False)`."""
    parse = boto_parser()
    return lambda body: page_from_parsed(parse(body))


def drain_all(stream: StreamClient, layout: Layout) -> None:
    """Drain the stream to its end."""
    while not drain_tick(SOURCE, stream, layout).caught_up:
        pass


def read_bytes(url: str, stream: PagesStream) -> None:
    """Read every page over one plain connection without parsing: the limit of the server."""
    connection = HTTPConnection(url.removeprefix("http://"))
    headers = {"x-amz-target": "DynamoDBStreams_20120810.GetRecords"}
    for iterator in stream.iterators():
        connection.request("POST", "/", json.dumps({"ShardIterator": iterator}), headers)
        connection.getresponse().read()
    connection.close()


def child(variant: str, folder: Path) -> Measured:
    measured = Measured(variant)
    parser = parsed_page() if variant == PARSED else parse_page
    stream = PagesStream(folder, parser)
    measured.records, measured.body_bytes = stream.records, stream.body_bytes
    if variant == PARSER:
        parse = boto_parser()
        with measuring(measured):
            for body in stream.bodies():
                parse(body)
        return measured
    if variant == HTTP:
        with tempfile.TemporaryDirectory(prefix="bench-drain-") as root, serving(folder) as url:
            connection = ConnectionSettings(endpoint_url=url, region=SOURCE.region)
            client = BotoStreamClient(SOURCE.table_name, build_clients(connection))
            with measuring(measured):
                drain_all(client, Layout(root))
        return measured
    if variant == SERVER:
        with serving(folder) as url, measuring(measured):
            read_bytes(url, stream)
        return measured
    with tempfile.TemporaryDirectory(prefix="bench-drain-") as root, Stages(measured) as stages:
        if variant == RAW:
            parser = stages.timed("parse pages", parse_page)
            stream = PagesStream(folder, parser)
            stages.wrap(batch_writer.BatchWriter, "put", "build Arrow, write Parquet (zstd 1)")
            stages.wrap(batch_writer.BatchWriter, "finish", "write the end of a file")
            stages.wrap(change_log_schema, "_changes_table", "of which: build Arrow")
            stages.wrap(change_log.ChangeLog, "open_or_create", "open the change log")
            stages.wrap(CheckpointTable, "open_or_create", "read the checkpoint")
            stages.wrap(CheckpointSnapshot, "save", "save the checkpoint")
            stages.wrap(batch_writer.BatchWriter, "commit", "commit the batch")
        with measuring(measured):
            drain_all(stream, Layout(root))
        size = sum(file.stat().st_size for file in Path(root).rglob("*.parquet"))
        measured.notes["stored_bytes_per_record"] = size / measured.records
    return measured


def main(results: Path, pages: Path, records: int = DEFAULT_RECORDS) -> list[Measured]:
    folder = generated(Workload(records=records), pages)
    slow = generated(Workload(records=max(records // 10, 1000)), pages)
    rows = [
        repeated(2, lambda: in_child("benchmarks.drain", RAW, str(folder))),
        in_child("benchmarks.drain", HTTP, str(folder)),
        in_child("benchmarks.drain", SERVER, str(folder)),
        in_child("benchmarks.drain", PARSED, str(slow)),
        in_child("benchmarks.drain", PARSER, str(slow)),
    ]
    write(results, "drain", rows, markdown("Bytes to committed change log", rows, PARSED))
    return rows


if __name__ == "__main__":
    command_line(child, main, DEFAULT_RECORDS)
