"""What people write instead of `items(types=...)`: the same typed dataset without this library.

Each does less than a drain and an apply: nothing is landed, no position is kept, a crash means to
start over, and an older record that comes later wins.
"""

from __future__ import annotations

import importlib.util
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from benchmarks.stream import PagesStream
from datazone_dagster.source.wire import parse_page

SCHEMA = pa.schema(
    [
        ("orderId", pa.string()),
        ("customerEmail", pa.string()),
        ("orderTotal", pa.decimal128(18, 2)),
        ("status", pa.string()),
        ("currency", pa.string()),
        ("updatedAt", pa.timestamp("us", tz="UTC")),
        ("items", pa.list_(pa.struct([("sku", pa.string()), ("qty", pa.int64())]))),
        ("address", pa.struct([("city", pa.string()), ("zip", pa.string())])),
        ("gift", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("revision", pa.int64()),
        ("note", pa.string()),
    ]
)
MERGE_RECORDS = 20_000
Image = dict[str, Any]


def _row(image: Image) -> dict[str, Any]:
    return {
        "orderId": image["orderId"]["S"],
        "customerEmail": image["customerEmail"]["S"],
        "orderTotal": Decimal(image["orderTotal"]["N"]),
        "status": image["status"]["S"],
        "currency": image["currency"]["S"],
        "updatedAt": datetime.fromisoformat(image["updatedAt"]["S"].rstrip("Z")).replace(
            tzinfo=timezone.utc
        ),
        "items": [
            {"sku": line["M"]["sku"]["S"], "qty": int(line["M"]["qty"]["N"])}
            for line in image["items"]["L"]
        ],
        "address": {
            "city": image["address"]["M"]["city"]["S"],
            "zip": image["address"]["M"]["zip"]["S"],
        },
        "gift": image["gift"]["BOOL"],
        "tags": sorted(image["tags"]["SS"]),
        "revision": int(image["revision"]["N"]),
        "note": image["note"]["S"],
    }


def _rows(images: dict[str, Image | None]) -> pa.Table:
    return pa.Table.from_pylist([_row(one) for one in images.values() if one is not None], SCHEMA)


def fold(pages: Path, uri: str) -> int:
    """Hold the last record of each key in memory, and write once. Return the number of records."""
    last, records = dict[str, Image | None](), 0
    for body in PagesStream(pages, parse_page).bodies():
        for record in msgspec.json.decode(body)["Records"]:
            change = record["dynamodb"]
            last[change["Keys"]["orderId"]["S"]] = change.get("NewImage")
            records += 1
    write_deltalake(uri, _rows(last))
    return records


def merges(pages: Path, uri: str) -> int:
    """Merge the last record of each key by delta-rs, 20,000 records at a time."""
    last, records, waiting = dict[str, Image | None](), 0, 0
    table = DeltaTable.create(uri, SCHEMA)
    for body in PagesStream(pages, parse_page).bodies():
        for record in msgspec.json.decode(body)["Records"]:
            change = record["dynamodb"]
            last[change["Keys"]["orderId"]["S"]] = change.get("NewImage")
            records += 1
            waiting += 1
        if waiting >= MERGE_RECORDS:
            _merge(table, last)
            last, waiting = {}, 0
    _merge(table, last)
    return records


def _merge(table: DeltaTable, last: dict[str, Image | None]) -> None:
    removed = [{"orderId": key} for key, image in last.items() if image is None]
    same = "old.orderId = new.orderId"
    rows = table.merge(_rows(last), same, source_alias="new", target_alias="old")
    rows.when_matched_update_all().when_not_matched_insert_all().execute()
    if removed:
        keys = pa.Table.from_pylist(removed, pa.schema([SCHEMA.field("orderId")]))
        gone = table.merge(keys, same, source_alias="new", target_alias="old")
        gone.when_matched_delete().execute()


SAIL_MISSING = (
    "Sail is left out: install it with `pip install pysail==0.7.2 'pyspark[connect]'` (63 MB)."
)


def has_sail() -> bool:
    return all(importlib.util.find_spec(name) for name in ("pysail", "pyspark", "grpc_status"))


def as_lines(pages: Path, folder: Path) -> list[Path]:
    """Write a file of JSON lines per shard, a body of GetRecords each, for Sail to read."""
    stream, files = PagesStream(pages, parse_page), []
    for shard, refs in enumerate(stream.pages):
        files.append(folder / f"{shard}.json")
        with files[-1].open("wb") as lines:
            for ref in refs:
                lines.write(stream.body(shard, ref) + b"\n")
    return files


_S, _N = "STRUCT<S: STRING>", "STRUCT<N: STRING>"
_IMAGE = (
    f"STRUCT<orderId: {_S}, customerEmail: {_S}, orderTotal: {_N}, status: {_S}, currency: {_S}, "
    f"updatedAt: {_S}, items: STRUCT<L: ARRAY<STRUCT<M: STRUCT<sku: {_S}, qty: {_N}>>>>, "
    f"address: STRUCT<M: STRUCT<city: {_S}, zip: {_S}>>, gift: STRUCT<BOOL: BOOLEAN>, "
    f"tags: STRUCT<SS: ARRAY<STRING>>, revision: {_N}, note: {_S}>"
)
_RECORDS = (
    f"Records ARRAY<STRUCT<dynamodb: STRUCT<Keys: STRUCT<orderId: {_S}>, NewImage: {_IMAGE}, "
    "SequenceNumber: STRING>>>"
)
_TABLE = (
    "CREATE TABLE orders (orderId STRING, customerEmail STRING, orderTotal DECIMAL(18, 2), "
    "status STRING, currency STRING, updatedAt TIMESTAMP, "
    "items ARRAY<STRUCT<sku: STRING, qty: BIGINT>>, address STRUCT<city: STRING, zip: STRING>, "
    "gift BOOLEAN, tags ARRAY<STRING>, revision BIGINT, note STRING) USING delta "
    "LOCATION '{uri}' TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
)
_LATEST = """
SELECT key AS orderId, n.customerEmail.S AS customerEmail,
    CAST(n.orderTotal.N AS DECIMAL(18, 2)) AS orderTotal, n.status.S AS status,
    n.currency.S AS currency, CAST(n.updatedAt.S AS TIMESTAMP) AS updatedAt,
    transform(n.items.L, x -> named_struct('sku', x.M.sku.S, 'qty', CAST(x.M.qty.N AS BIGINT)))
        AS items,
    named_struct('city', n.address.M.city.S, 'zip', n.address.M.zip.S) AS address,
    n.gift.BOOL AS gift, sort_array(n.tags.SS) AS tags, CAST(n.revision.N AS BIGINT) AS revision,
    n.note.S AS note, n.orderId.S IS NULL AS gone
FROM (
    SELECT r.dynamodb.Keys.orderId.S AS key, r.dynamodb.NewImage AS n,
        row_number() OVER (PARTITION BY r.dynamodb.Keys.orderId.S
            ORDER BY CAST(r.dynamodb.SequenceNumber AS DECIMAL(38, 0)) DESC) AS age
    FROM (SELECT explode(Records) AS r FROM bodies)
) WHERE age = 1
"""
_MERGE = (
    "MERGE INTO orders USING latest ON orders.orderId = latest.orderId "
    "WHEN MATCHED AND latest.gone THEN DELETE WHEN MATCHED THEN UPDATE SET {updates} "
    "WHEN NOT MATCHED AND NOT latest.gone THEN INSERT ({names}) VALUES ({values})"
)


def sail(files: list[Path], uri: str) -> None:
    """Merge a file at a time in Sail, with deletion vectors; the server is in this process."""
    # Not a dependency: 63 MB for one line of a table.
    server_class = importlib.import_module("pysail.spark").SparkConnectServer
    session_class = importlib.import_module("pyspark.sql").SparkSession
    server = server_class("127.0.0.1", 0)
    server.start(background=True)
    spark = session_class.builder.remote(f"sc://127.0.0.1:{server.listening_address[1]}")
    session = spark.getOrCreate()
    merge = _MERGE.format(
        updates=", ".join(f"{name} = latest.{name}" for name in SCHEMA.names),
        names=", ".join(SCHEMA.names),
        values=", ".join(f"latest.{name}" for name in SCHEMA.names),
    )
    try:
        session.sql(_TABLE.format(uri=uri))
        for file in files:
            session.read.schema(_RECORDS).json(str(file)).createOrReplaceTempView("bodies")
            session.sql(_LATEST).createOrReplaceTempView("latest")
            session.sql(merge)
    finally:
        session.stop()
        server.stop()
