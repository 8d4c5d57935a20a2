"""Raw records in memory to typed Arrow columns: ours against boto3's parser, in the same run.

    python -m benchmarks.decode [records]

The bodies are GetRecords answers, 1.8 KB a record with both images, 12 attributes and a NULL.
Ours: page parser, change log rows, keys, `items()`, Arrow. Theirs: boto3's parser, boto3's
TypeDeserializer on the new image, pyarrow. Both end with one Arrow table of the new images.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.drain import boto_parser
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
from benchmarks.stream import PagesStream
from datazone_dagster.apply.bad_records import keyed
from datazone_dagster.changelog.schema import BatchRows, ShardRecords
from datazone_dagster.database.database import Databases
from datazone_dagster.frame.frame import Frame
from datazone_dagster.source.wire import parse_page

OURS = "items()"
BOTH = 'items("both")'
THEIRS = "boto3 parser, TypeDeserializer, pyarrow"
DEFAULT_RECORDS = 36_000
"""64 MB of bodies, the default size of a chunk."""
DATABASES = Databases()
"""Databases of a run; the first chunk opens them, which is not measured."""

_WARM_UP_PAGES = 2


def change_rows(bodies: list[bytes]) -> pa.Table:
    """Convert bodies to rows of the change log; each body is released once it is read."""
    batch_rows = BatchRows(1, 0)
    tables: list[pa.Table] = []
    while bodies:
        page = parse_page(bodies.pop(0))
        tables += batch_rows.add(ShardRecords("arn", "shard", None, page.records))
    rows = pa.concat_tables([*tables, *batch_rows.flush()])
    plain = [
        field.with_type(pa.string()) if pa.types.is_dictionary(field.type) else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(plain))


def typed(rows: pa.Table, image: Any) -> pa.Table:
    changes, _ = keyed(rows)
    return Frame.of_changes(changes, databases=DATABASES).items(image).arrow()


def deserialized(parse: Callable[[bytes], dict[str, Any]], bodies: list[bytes]) -> pa.Table:
    """Parse the usual way, page by page; sets become lists, which pyarrow accepts."""
    from boto3.dynamodb.types import TypeDeserializer

    deserialize = TypeDeserializer().deserialize
    items = []
    while bodies:
        for record in parse(bodies.pop(0))["Records"]:
            image = record["dynamodb"].get("NewImage", {})
            item = {name: deserialize(value) for name, value in image.items()}
            items.append(
                {
                    name: sorted(value) if isinstance(value, set) else value
                    for name, value in item.items()
                }
            )
    return pa.Table.from_pylist(items)


def resident_mib() -> float:
    """Return the resident memory of this process now, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


def child(variant: str, folder: Path) -> Measured:
    measured = Measured(variant)
    stream = PagesStream(folder, parse_page)
    measured.records, measured.body_bytes = stream.records, stream.body_bytes
    parse = boto_parser()

    def run(bodies: list[bytes]) -> pa.Table:
        if variant == THEIRS:
            return deserialized(parse, bodies)
        return typed(change_rows(bodies), "both" if variant == BOTH else "new")

    run(stream.bodies()[:_WARM_UP_PAGES])  # imports, compiled patterns
    gc.collect()
    before_mib = resident_mib()
    bodies = stream.bodies()
    with Stages(measured) as stages:
        if variant != THEIRS:
            module = sys.modules[__name__]
            stages.wrap(module, "change_rows", "bodies to change log rows")
            stages.wrap(module, "keyed", "canonical keys")
            stages.wrap(Frame, "items", "items(): discover, parse, type")
            stages.wrap(Frame, "arrow", "result to Arrow")
        with measuring(measured):
            table = run(bodies)
    assert len(table) == measured.records
    raw_mib = measured.body_bytes / 2**20
    measured.notes["memory_times_raw"] = (measured.peak_mib - before_mib) / raw_mib
    return measured


def main(results: Path, pages: Path, records: int = DEFAULT_RECORDS) -> list[Measured]:
    folder = str(generated(Workload(records=records, keys=records // 3, shards=1), pages))
    rows = [
        repeated(3, lambda variant=variant: in_child("benchmarks.decode", variant, folder))  # type: ignore[misc]
        for variant in (OURS, BOTH, THEIRS)
    ]
    memory = "".join(
        f"* {row.name}: peak of {row.notes['memory_times_raw']:.1f} times the raw bytes, "
        "raw bytes included\n"
        for row in rows
    )
    table = markdown("Raw records to typed Arrow columns", rows, THEIRS) + "\nMemory:\n\n" + memory
    write(results, "decode", rows, table)
    return rows


if __name__ == "__main__":
    command_line(child, main, DEFAULT_RECORDS)
