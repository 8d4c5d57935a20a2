"""Write side of streams: sequence numbers, shards that open and close, records.

Sequence numbers increase strictly within a stream and have gaps. They start with 21 digits,
just below a power of ten, and widen to 27: a client that sorts them as strings fails within
the first dozen records. They are stored padded to 40 digits, so that SQLite's text order is
their numeric order.
"""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import datetime, timezone

import msgspec

from datazone_dagster.local.keys import HASH_SPACE, KeySchema, StoredKey
from datazone_dagster.local.service import ACCOUNT_ID, Call
from datazone_dagster.local.service_errors import validation
from datazone_dagster.local.values import Item, item_bytes

_FIRST_SEQUENCE = 980 * 10**18
_WIDTH_MAX = 27
_NUMBERS_A_DECADE = 400
_PADDED_DIGITS = 40

TTL_IDENTITY = {"PrincipalId": "dynamodb.amazonaws.com", "Type": "Service"}
_encode = msgspec.json.encode


def padded(sequence: int) -> str:
    """Return a sequence number in its stored form."""
    return f"{sequence:0{_PADDED_DIGITS}d}"


def after_sequence(last: int) -> int:
    """Return the next sequence number; the same `last` always gives the same one."""
    jitter = 500 + (last * 2654435761 >> 9) % 1000
    decade = 10 ** (len(str(last)) - 1)
    # Steps are tiny in the widest decade: a long-lived server would outgrow 27 digits otherwise.
    step = decade * 9 // _NUMBERS_A_DECADE if decade < 10 ** (_WIDTH_MAX - 1) else 10**6
    return last + 1 + step * jitter // 1000


def open_stream(call: Call, *, table_name: str, table_id: str, schema: KeySchema, view: str) -> str:
    """Create a stream with its first shards and return its ARN."""
    now = call.clock.now()
    known = call.db.execute(
        "SELECT max(last_sequence) AS last FROM streams WHERE table_id = ?", (table_id,)
    ).fetchone()
    last = _FIRST_SEQUENCE if known["last"] is None else int(known["last"])
    label, arn = _label_and_arn(call, table_name, now)
    cursor = call.db.execute(
        "INSERT INTO streams (arn, table_name, table_id, label, region, view_type, key_schema,"
        " created_at, last_sequence) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (arn, table_name, table_id, label, call.region, view, _encode(schema), now, padded(last)),
    )
    stream, count = int(cursor.lastrowid or 0), call.settings.initial_shards
    for index in range(count):
        _open_shard(
            call, stream, None, HASH_SPACE * index // count, HASH_SPACE * (index + 1) // count
        )
    return arn


def _label_and_arn(call: Call, table_name: str, now: float) -> tuple[str, str]:
    milliseconds = int(now * 1000)
    while True:
        moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        label = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}"
        arn = f"{table_arn(call.region, table_name)}/stream/{label}"
        taken = call.db.execute("SELECT 1 FROM streams WHERE arn = ?", (arn,)).fetchone()
        if taken is None:
            return label, arn
        milliseconds += 1


def table_arn(region: str, table_name: str) -> str:
    """Return the ARN of a table."""
    return f"arn:aws:dynamodb:{region}:{ACCOUNT_ID}:table/{table_name}"


def close_stream(call: Call, arn: str) -> None:
    """Disable a stream: its shards close, its records stay readable for 24 hours."""
    row = call.db.execute("SELECT number FROM streams WHERE arn = ?", (arn,)).fetchone()
    for shard in open_shards(call, row["number"]):
        _close_shard(call, shard)
    call.db.execute(
        "UPDATE streams SET disabled_at = ? WHERE number = ?", (call.clock.now(), row["number"])
    )


def open_shards(call: Call, stream: int) -> list[sqlite3.Row]:
    """Return the shards that take writes, in creation order."""
    return call.db.execute(
        "SELECT * FROM shards WHERE stream = ? AND ending IS NULL ORDER BY number", (stream,)
    ).fetchall()


def split_shard(call: Call, shard: sqlite3.Row) -> list[str]:
    """Close a shard, open two children with half of its keys each, and return their ids."""
    low, high = shard["hash_from"], shard["hash_to"]
    if high - low < 2:
        raise validation(f"{shard['shard_id']} covers a single hash and can't be split")
    middle = (low + high) // 2
    return _replace(call, shard, [(low, middle), (middle, high)])


def roll_shard(call: Call, shard: sqlite3.Row) -> list[str]:
    """Close a shard, open one child in its place and return the child's id."""
    return _replace(call, shard, [(shard["hash_from"], shard["hash_to"])])


def _replace(call: Call, shard: sqlite3.Row, ranges: list[tuple[int, int]]) -> list[str]:
    if shard["ending"] is not None:
        raise validation(f"{shard['shard_id']} is closed: only an open shard splits or rolls")
    _close_shard(call, shard)
    return [_open_shard(call, shard["stream"], shard["shard_id"], *bounds) for bounds in ranges]


def roll_aged_shards(call: Call, stream: int) -> None:
    """Roll every open shard that has reached the age in the settings."""
    age = call.settings.roll_after_seconds
    if age is None:
        return
    for shard in open_shards(call, stream):
        if call.clock.now() - shard["opened_at"] >= age:
            roll_shard(call, shard)


def _open_shard(call: Call, stream: int, parent: str | None, low: int, high: int) -> str:
    sequence = _draw_sequence(call, stream)
    row = call.db.execute("SELECT * FROM streams WHERE number = ?", (stream,)).fetchone()
    # Ids contain milliseconds; they stay unique and in creation order whatever the clock does.
    milliseconds = max(int(call.clock.now() * 1000), row["last_shard_ms"] + 1)
    suffix = hashlib.blake2b(f"{row['arn']} {milliseconds}".encode(), digest_size=4).hexdigest()
    shard_id = f"shardId-{milliseconds:020d}-{suffix}"
    call.db.execute("UPDATE streams SET last_shard_ms = ? WHERE number = ?", (milliseconds, stream))
    call.db.execute(
        "INSERT INTO shards (stream, shard_id, parent_id, starting, hash_from, hash_to, opened_at)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (stream, shard_id, parent, padded(sequence), low, high, call.clock.now()),
    )
    return shard_id


def _close_shard(call: Call, shard: sqlite3.Row) -> None:
    call.db.execute(
        "UPDATE shards SET ending = ?, closed_at = ? WHERE number = ?",
        (padded(_draw_sequence(call, shard["stream"])), call.clock.now(), shard["number"]),
    )


def _draw_sequence(call: Call, stream: int) -> int:
    row = call.db.execute(
        "SELECT last_sequence FROM streams WHERE number = ?", (stream,)
    ).fetchone()
    sequence = after_sequence(int(row["last_sequence"]))
    call.db.execute(
        "UPDATE streams SET last_sequence = ? WHERE number = ?", (padded(sequence), stream)
    )
    return sequence


def append_record(
    call: Call,
    arn: str,
    key: StoredKey,
    *,
    old: Item | None,
    new: Item | None,
    identity: dict[str, str] | None = None,
) -> None:
    """Write the stream record of one change. The caller ensures that old and new differ."""
    stream = call.db.execute("SELECT * FROM streams WHERE arn = ?", (arn,)).fetchone()
    roll_aged_shards(call, stream["number"])
    shard = call.db.execute(
        "SELECT number FROM shards WHERE stream = ? AND ending IS NULL"
        " AND hash_from <= ? AND hash_to > ?",
        (stream["number"], key.hash, key.hash),
    ).fetchone()
    sequence, now = _draw_sequence(call, stream["number"]), call.clock.now()
    record = _record(stream, sequence, now, old, new)
    if identity is not None:
        record["userIdentity"] = identity
    call.db.execute(
        "INSERT INTO records (shard, sequence, created_at, body) VALUES (?, ?, ?, ?)",
        (shard["number"], padded(sequence), now, _encode(record)),
    )


def _record(
    stream: sqlite3.Row, sequence: int, now: float, old: Item | None, new: Item | None
) -> dict[str, object]:
    schema = msgspec.json.decode(stream["key_schema"], type=KeySchema)
    keys = schema.of(new or old or {})
    view: str = stream["view_type"]
    change: dict[str, object] = {"ApproximateCreationDateTime": int(now), "Keys": keys}
    size_bytes = item_bytes(keys)
    for member, image, views in (
        ("NewImage", new, ("NEW_IMAGE", "NEW_AND_OLD_IMAGES")),
        ("OldImage", old, ("OLD_IMAGE", "NEW_AND_OLD_IMAGES")),
    ):
        if image is not None and view in views:
            change[member] = image
            size_bytes += item_bytes(image)
    change |= {
        "SequenceNumber": str(sequence),
        "SizeBytes": size_bytes,
        "StreamViewType": view,
    }
    event_id = hashlib.blake2b(f"{stream['arn']} {sequence}".encode(), digest_size=16).hexdigest()
    return {
        "awsRegion": stream["region"],
        "dynamodb": change,
        "eventID": event_id,
        "eventName": "INSERT" if old is None else "REMOVE" if new is None else "MODIFY",
        "eventSource": "aws:dynamodb",
        "eventVersion": "1.1",
    }
