"""Shards of a Kinesis stream: they split in two, and two of them merge into one.

Sequence numbers have 56 digits, as those of the service. They increase within a shard, and those
of a child are above those of its parents; between other shards they say nothing.
"""

from __future__ import annotations

import sqlite3

from datazone_dagster.local.keys import HASH_SPACE
from datazone_dagster.local.service import Body, Call, optional_integer, optional_text, text
from datazone_dagster.local.service_errors import ServiceError, not_found

SEQUENCE_DIGITS = 56
SHARDS_PER_PAGE = 1_000
_FIRST_DIGITS = "49"
_COUNT_DIGITS = 40
_SCALE = 2**128 // HASH_SPACE


def open_first_shards(call: Call, stream: int, count: int) -> None:
    """Open the shards of a new stream."""
    for index in range(count):
        bounds = (HASH_SPACE * index // count, HASH_SPACE * (index + 1) // count)
        _open(call, stream, *bounds)


def open_shards(call: Call, stream: int) -> list[sqlite3.Row]:
    """Return the shards that take records, in creation order."""
    return call.db.execute(
        "SELECT * FROM kinesis_shards WHERE stream = ? AND ending IS NULL ORDER BY number",
        (stream,),
    ).fetchall()


def list_shards(call: Call, stream: sqlite3.Row, body: Body) -> Body:
    """`ListShards`: every shard that still has, or may get, records; a token names the last one."""
    limit = optional_integer(body, "MaxResults", 1, 10_000) or SHARDS_PER_PAGE
    start = optional_text(body, "ExclusiveStartShardId") or ""
    rows = call.db.execute(
        "SELECT * FROM kinesis_shards WHERE stream = ? AND shard_id > ? ORDER BY shard_id LIMIT ?",
        (stream["number"], start, limit + 1),
    ).fetchall()
    answer: Body = {"Shards": [described(row) for row in rows[:limit]]}
    if len(rows) > limit:
        answer["NextToken"] = f"{stream['name']}|{rows[limit - 1]['shard_id']}"
    return answer


def described(row: sqlite3.Row) -> Body:
    """Return a shard as ListShards shows it."""
    numbers = {"StartingSequenceNumber": row["starting"]}
    if row["ending"] is not None:
        numbers["EndingSequenceNumber"] = row["ending"]
    shard: Body = {
        "ShardId": row["shard_id"],
        "HashKeyRange": {
            "StartingHashKey": str(row["hash_from"] * _SCALE),
            "EndingHashKey": str(row["hash_to"] * _SCALE - 1),
        },
        "SequenceNumberRange": numbers,
    }
    if row["parent_id"] is not None:
        shard["ParentShardId"] = row["parent_id"]
    if row["adjacent_id"] is not None:
        shard["AdjacentParentShardId"] = row["adjacent_id"]
    return shard


def split_shard(call: Call, stream: sqlite3.Row, body: Body) -> Body:
    """`SplitShard`: the shard closes, and two children open at the hash key given."""
    shard = find_shard(call, stream["number"], text(body, "ShardToSplit"))
    _require_open(shard)
    middle = int(text(body, "NewStartingHashKey")) // _SCALE
    if not shard["hash_from"] < middle < shard["hash_to"]:
        raise ServiceError("InvalidArgumentException", "NewStartingHashKey is not in the shard")
    _close(call, shard)
    for bounds in ((shard["hash_from"], middle), (middle, shard["hash_to"])):
        _open(call, stream["number"], *bounds, parent=shard["shard_id"])
    return {}


def merge_shards(call: Call, stream: sqlite3.Row, body: Body) -> Body:
    """`MergeShards`: two neighbours close, and one child of both opens."""
    first, second = (
        find_shard(call, stream["number"], text(body, name))
        for name in ("ShardToMerge", "AdjacentShardToMerge")
    )
    for shard in (first, second):
        _require_open(shard)
    bounds = sorted([(one["hash_from"], one["hash_to"]) for one in (first, second)])
    if bounds[0][1] != bounds[1][0]:
        raise ServiceError("InvalidArgumentException", "The two shards are not adjacent")
    for shard in (first, second):
        _close(call, shard)
    _open(
        call,
        stream["number"],
        bounds[0][0],
        bounds[1][1],
        parent=first["shard_id"],
        adjacent=second["shard_id"],
    )
    return {}


def find_shard(call: Call, stream: int, shard_id: str) -> sqlite3.Row:
    """Return a shard of a stream.

    Raises:
        ServiceError: `ResourceNotFoundException`.
    """
    row: sqlite3.Row | None = call.db.execute(
        "SELECT * FROM kinesis_shards WHERE stream = ? AND shard_id = ?", (stream, shard_id)
    ).fetchone()
    if row is None:
        raise not_found(f"Could not find shard {shard_id}.")
    return row


def children_of(call: Call, shard: sqlite3.Row) -> list[Body]:
    """Return the children of a shard as GetRecords shows them at its end."""
    rows = call.db.execute(
        "SELECT * FROM kinesis_shards WHERE stream = ? AND ? IN (parent_id, adjacent_id)",
        (shard["stream"], shard["shard_id"]),
    )
    return [
        {
            "ShardId": row["shard_id"],
            "ParentShards": [one for one in (row["parent_id"], row["adjacent_id"]) if one],
            "HashKeyRange": described(row)["HashKeyRange"],
        }
        for row in rows
    ]


def next_sequence(call: Call, shard: int) -> str:
    """Draw the next sequence number of a shard."""
    row = call.db.execute("SELECT * FROM kinesis_shards WHERE number = ?", (shard,)).fetchone()
    count = int(row["last"]) + 1 + (int(row["last"]) * 7919) % 97
    call.db.execute("UPDATE kinesis_shards SET last = ? WHERE number = ?", (str(count), shard))
    return _sequence(shard, count)


def _sequence(shard: int, count: int) -> str:
    width = SEQUENCE_DIGITS - len(_FIRST_DIGITS) - _COUNT_DIGITS
    return f"{_FIRST_DIGITS}{shard:0{width}d}{count:0{_COUNT_DIGITS}d}"


def _open(
    call: Call,
    stream: int,
    low: int,
    high: int,
    *,
    parent: str | None = None,
    adjacent: str | None = None,
) -> None:
    known = call.db.execute(
        "SELECT next_shard FROM kinesis_streams WHERE number = ?", (stream,)
    ).fetchone()
    call.db.execute(
        "UPDATE kinesis_streams SET next_shard = next_shard + 1 WHERE number = ?", (stream,)
    )
    cursor = call.db.execute(
        "INSERT INTO kinesis_shards (stream, shard_id, parent_id, adjacent_id, hash_from, hash_to,"
        " starting, last) VALUES (?, ?, ?, ?, ?, ?, '', '1')",
        (stream, f"shardId-{known['next_shard']:012d}", parent, adjacent, low, high),
    )
    number = int(cursor.lastrowid or 0)
    call.db.execute(
        "UPDATE kinesis_shards SET starting = ? WHERE number = ?", (_sequence(number, 0), number)
    )


def _close(call: Call, shard: sqlite3.Row) -> None:
    call.db.execute(
        "UPDATE kinesis_shards SET ending = ?, closed_at = ? WHERE number = ?",
        (next_sequence(call, shard["number"]), call.clock.now(), shard["number"]),
    )


def _require_open(shard: sqlite3.Row) -> None:
    if shard["ending"] is not None:
        raise ServiceError("InvalidArgumentException", f"{shard['shard_id']} is closed")
