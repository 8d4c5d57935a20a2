"""Reads of a Kinesis shard: GetShardIterator, GetRecords, and what the retention has removed.

Unlike a DynamoDB stream, Kinesis says nothing when an iterator is older than its records: the
next ones follow, and what is between is missing.
"""

from __future__ import annotations

import base64
import re
import sqlite3

import msgspec

from datazone_dagster.local.iterators import ShardPosition, new_reader, read, written
from datazone_dagster.local.kinesis.shards import SEQUENCE_DIGITS, children_of, find_shard
from datazone_dagster.local.kinesis.streams import invalid, stream_arn
from datazone_dagster.local.service import Body, Call, choice, optional_integer, optional_text, text
from datazone_dagster.local.service_errors import not_found
from datazone_dagster.local.stream_reads import RecordsPage
from datazone_dagster.model.service_limits import (
    KINESIS_ITERATOR_LIFETIME_SECONDS,
    KINESIS_PAGE_BYTES,
    KINESIS_PAGE_RECORDS,
)

_TYPES = ("TRIM_HORIZON", "LATEST", "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER")
_SEQUENCE = re.compile(r"0|([1-9]\d{0,128})", re.ASCII)
_BEGINNING = "0" * SEQUENCE_DIGITS


class KinesisPage(RecordsPage, frozen=True):
    """GetRecords answer of Kinesis before it is encoded."""

    behind_milliseconds: int = 0
    children: list[Body] = []

    def encoded(self) -> bytes:
        """Return the JSON body."""
        body = super().encoded()[:-1]
        body += f',"MillisBehindLatest":{self.behind_milliseconds}'.encode()
        if self.children:
            body += b',"ChildShards":' + msgspec.json.encode(self.children)
        return body + b"}"


def get_shard_iterator(call: Call, stream: sqlite3.Row, body: Body) -> Body:
    """`GetShardIterator`."""
    trim_aged(call, stream)
    shard = find_shard(call, stream["number"], text(body, "ShardId"))
    kind = choice(body, "ShardIteratorType", _TYPES)
    sequence = optional_text(body, "StartingSequenceNumber")
    position = ShardPosition(
        shard["number"], _start(call, shard, kind, sequence), call.clock.now(), new_reader()
    )
    arn = stream_arn(stream["region"], stream["name"])
    return {"ShardIterator": written(arn, position)}


def _start(call: Call, shard: sqlite3.Row, kind: str, sequence: str | None) -> str:
    if kind == "TRIM_HORIZON":
        return _BEGINNING
    if kind == "LATEST":
        row = call.db.execute(
            "SELECT max(sequence) AS last FROM kinesis_records WHERE shard = ?", (shard["number"],)
        ).fetchone()
        return str(row["last"] or shard["trimmed_through"] or _BEGINNING)
    if sequence is None or not _SEQUENCE.fullmatch(sequence) or len(sequence) > SEQUENCE_DIGITS:
        raise invalid(f"StartingSequenceNumber {sequence!r} used in {kind} is invalid.")
    wanted = f"{int(sequence):0{SEQUENCE_DIGITS}d}"
    if not shard["starting"] <= wanted <= (shard["ending"] or "9"):
        raise invalid(
            f"Invalid StartingSequenceNumber. It encodes another shard than {shard['shard_id']}"
        )
    if wanted <= shard["trimmed_through"]:
        raise invalid(f"StartingSequenceNumber {sequence} is past the retention of the stream.")
    before = f"{int(sequence) - 1:0{SEQUENCE_DIGITS}d}"
    return before if kind == "AT_SEQUENCE_NUMBER" else wanted


def get_records(call: Call, body: Body) -> KinesisPage:
    """`GetRecords`: at most 10,000 records or 10 MB, at least one if any is left."""
    iterator = text(body, "ShardIterator")
    limit = optional_integer(body, "Limit", 1, KINESIS_PAGE_RECORDS) or KINESIS_PAGE_RECORDS
    now = call.clock.now()
    position = read(iterator, now, KINESIS_ITERATOR_LIFETIME_SECONDS)
    shard = call.db.execute(
        "SELECT * FROM kinesis_shards WHERE number = ?", (position.shard,)
    ).fetchone()
    stream = (
        shard
        and call.db.execute(
            "SELECT * FROM kinesis_streams WHERE number = ?", (shard["stream"],)
        ).fetchone()
    )
    if stream is None or trim_aged(call, stream, shard["number"]):
        raise not_found("Shard of the iterator not found.")
    records: list[bytes] = []
    last, size_bytes, behind_seconds = position.after, 0, 0.0
    for row in call.db.execute(
        "SELECT * FROM kinesis_records WHERE shard = ? AND sequence > ? ORDER BY sequence LIMIT ?",
        (position.shard, position.after, limit + 1),
    ):
        size_bytes += len(row["data"])
        if len(records) == limit or (records and size_bytes > KINESIS_PAGE_BYTES):
            behind_seconds = max(0.001, now - row["arrived_at"])
            break
        records.append(_envelope(row))
        last = row["sequence"]
    ended = shard["ending"] is not None and not behind_seconds
    arn = stream_arn(stream["region"], stream["name"])
    return KinesisPage(
        records,
        None if ended else written(arn, position.moved(last, now)),
        int(behind_seconds * 1000),
        children_of(call, shard) if ended else [],
    )


def _envelope(row: sqlite3.Row) -> bytes:
    return msgspec.json.encode(
        {
            "SequenceNumber": row["sequence"],
            "ApproximateArrivalTimestamp": row["arrived_at"],
            "Data": base64.b64encode(row["data"]).decode(),
            "PartitionKey": row["partition_key"],
        }
    )


def trim_aged(call: Call, stream: sqlite3.Row, shard: int | None = None) -> bool:
    """Remove what is past the retention; return whether the shard given is gone with it."""
    trim_before(call, stream, call.clock.now() - stream["retention_hours"] * 3600)
    return (
        shard is not None
        and call.db.execute("SELECT 1 FROM kinesis_shards WHERE number = ?", (shard,)).fetchone()
        is None
    )


def trim_before(call: Call, stream: sqlite3.Row, horizon: float) -> int:
    """Remove records that arrived before a moment, and shards that closed before it.

    Returns:
        Number of records removed.
    """
    trimmed = 0
    for shard in call.db.execute(
        "SELECT * FROM kinesis_shards WHERE stream = ?", (stream["number"],)
    ).fetchall():
        bound = (shard["number"], horizon)
        through = call.db.execute(
            "SELECT max(sequence) AS last FROM kinesis_records WHERE shard = ? AND arrived_at < ?",
            bound,
        ).fetchone()["last"]
        if through is not None:
            trimmed += call.db.execute(
                "DELETE FROM kinesis_records WHERE shard = ? AND arrived_at < ?", bound
            ).rowcount
            call.db.execute(
                "UPDATE kinesis_shards SET trimmed_through = max(trimmed_through, ?)"
                " WHERE number = ?",
                (through, shard["number"]),
            )
        if shard["closed_at"] is not None and shard["closed_at"] < horizon:
            call.db.execute("DELETE FROM kinesis_shards WHERE number = ?", (shard["number"],))
    return trimmed
