"""What DynamoDB sends to a Kinesis stream: a record per change, at once or as scripted.

The service may deliver changes in another order, and more than once. Here a script says so: a
stream that is held collects records, and an admin call delivers them in any order, any number of
times.
"""

from __future__ import annotations

import base64
import hashlib
import sqlite3
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from datazone_dagster.local.keys import StoredKey
from datazone_dagster.local.kinesis.shards import next_sequence
from datazone_dagster.local.kinesis.streams import find_stream
from datazone_dagster.local.service import Body, Call, text
from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.local.tables import Table
from datazone_dagster.local.values import Item, item_bytes

_HASH_BITS = 62


def send_change(
    call: Call,
    table: Table,
    key: StoredKey,
    *,
    old: Item | None,
    new: Item | None,
    identity: dict[str, str] | None,
) -> None:
    """Send a change to the Kinesis stream of its table, if the table has one."""
    if table.kinesis_arn is None or table.kinesis_status != "ACTIVE":
        return
    try:
        stream = find_stream(call, {"StreamARN": table.kinesis_arn})
    except ServiceError:
        return  # the stream was deleted: the service drops the record as well
    data = msgspec.json.encode(_record(call, table, old, new, identity))
    partition_key = hashlib.md5(key.partition, usedforsecurity=False).hexdigest().upper()
    if stream["held"]:
        call.db.execute(
            "INSERT INTO kinesis_held (stream, hash, partition_key, data) VALUES (?, ?, ?, ?)",
            (stream["number"], key.hash, partition_key, data),
        )
    else:
        _store(call, stream["number"], key.hash, partition_key, data)


def _record(
    call: Call,
    table: Table,
    old: Item | None,
    new: Item | None,
    identity: dict[str, str] | None,
) -> Body:
    keys = table.schema.of(new or old or {})
    images = {"NewImage": new, "OldImage": old}
    found = {name: image for name, image in images.items() if image is not None}
    precise = table.kinesis_precision == "MICROSECOND"
    change: Body = {
        "ApproximateCreationDateTime": int(call.clock.now() * (1_000_000 if precise else 1_000)),
        "Keys": _encoded_again(keys),
        **{name: _encoded_again(image) for name, image in found.items()},
        "SizeBytes": item_bytes(keys) + sum(map(item_bytes, found.values())),
    }
    if precise:
        change["ApproximateCreationDateTimePrecision"] = "MICROSECOND"
    return {
        "awsRegion": table.region,
        "eventID": str(uuid.uuid4()),
        "eventName": "INSERT" if old is None else "REMOVE" if new is None else "MODIFY",
        "userIdentity": identity
        and {name[:1].lower() + name[1:]: v for name, v in identity.items()},
        "recordFormat": "application/json",
        "tableName": table.name,
        "dynamodb": change,
        "eventSource": "aws:dynamodb",
    }


def _encoded_again(item: Item) -> dict[str, Any]:
    """Encode binary values in base64 again, as the service does: they come encoded already."""
    return {name: _attribute_again(value) for name, value in item.items()}


def _attribute_again(value: Any) -> Any:
    ((kind, content),) = value.items()
    if kind == "B":
        return {kind: base64.b64encode(content.encode()).decode()}
    if kind == "BS":
        return {kind: [base64.b64encode(one.encode()).decode() for one in content]}
    if kind == "L":
        return {kind: [_attribute_again(one) for one in content]}
    return {kind: _encoded_again(content)} if kind == "M" else value


def put_record(call: Call, stream: sqlite3.Row, body: Body) -> Body:
    """`PutRecord`: what another writer than DynamoDB puts into the stream."""
    partition_key = text(body, "PartitionKey")
    digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
    hashed = int.from_bytes(digest[:8], "big") >> (64 - _HASH_BITS)
    data = base64.b64decode(text(body, "Data"))
    shard_id, sequence = _store(call, stream["number"], hashed, partition_key, data)
    return {"ShardId": shard_id, "SequenceNumber": sequence}


def hold(call: Call, body: Body) -> Body:
    """Let a stream collect the records of changes, or deliver those that come next at once."""
    stream = find_stream(call, {"StreamName": text(body, "stream")})
    call.db.execute(
        "UPDATE kinesis_streams SET held = ? WHERE number = ?",
        (int(bool(body.get("hold", True))), stream["number"]),
    )
    return {}


def deliver(call: Call, body: Body) -> Body:
    """Deliver held records in the order of their indexes; each index given twice comes twice."""
    stream = find_stream(call, {"StreamName": text(body, "stream")})
    held = call.db.execute(
        "SELECT * FROM kinesis_held WHERE stream = ? ORDER BY position", (stream["number"],)
    ).fetchall()
    order = body.get("order")
    if order is None:
        order = list(range(len(held)))
    if not isinstance(order, Sequence) or not all(
        isinstance(at, int) and 0 <= at < len(held) for at in order
    ):
        raise validation(f"order must be a list of indexes below {len(held)}")
    for at in order:
        row = held[at]
        _store(call, stream["number"], row["hash"], row["partition_key"], row["data"])
    for at in set(order):
        call.db.execute("DELETE FROM kinesis_held WHERE position = ?", (held[at]["position"],))
    return {"delivered": len(order), "left": len(held) - len(set(order))}


def _store(
    call: Call, stream: int, hashed: int, partition_key: str, data: bytes
) -> tuple[str, str]:
    shard = call.db.execute(
        "SELECT * FROM kinesis_shards WHERE stream = ? AND ending IS NULL"
        " AND hash_from <= ? AND hash_to > ?",
        (stream, hashed, hashed),
    ).fetchone()
    sequence = next_sequence(call, shard["number"])
    call.db.execute(
        "INSERT INTO kinesis_records (shard, sequence, arrived_at, partition_key, data)"
        " VALUES (?, ?, ?, ?, ?)",
        (shard["number"], sequence, call.clock.now(), partition_key, data),
    )
    return shard["shard_id"], sequence
