"""Admin calls that tests and the demo make besides DynamoDB's own: `/_admin/<name>`, JSON.

A call is a POST with the header `X-Datazone-Admin`. A web page can't send that header to another
origin without a permission that this server never gives, so no page in a browser on this machine
can reset tables or inject faults.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec

from datazone_dagster.errors import DefinitionError
from datazone_dagster.local.exports import BUCKET, EXPORT_FAILS, EXPORT_SECONDS
from datazone_dagster.local.faults import FaultPlan
from datazone_dagster.local.history import forget
from datazone_dagster.local.http_requests import Request
from datazone_dagster.local.kinesis import delivery
from datazone_dagster.local.kinesis.reads import trim_before as trim_kinesis_before
from datazone_dagster.local.kinesis.streams import find_stream as find_kinesis_stream
from datazone_dagster.local.operations import Answer, Operations, decoded
from datazone_dagster.local.rows import sweep_expired
from datazone_dagster.local.service import Body, Call, optional_integer, optional_text, text
from datazone_dagster.local.service_errors import ServiceError, not_found, validation
from datazone_dagster.local.store import erase, write_setting
from datazone_dagster.local.stream_log import open_shards, padded, roll_shard, split_shard
from datazone_dagster.local.tables import find_table, save_table
from datazone_dagster.local.trimming import trim_aged, trim_before, trim_through

ADMIN_PREFIX = "/_admin/"
ADMIN_HEADER = "X-Datazone-Admin"
CLOCK_OFFSET = "clock_offset_seconds"
_SEQUENCE = re.compile(r"[0-9]{1,40}")
_CLOCK_OFFSET_MAX_SECONDS = 10 * 366 * 86_400.0


class AdminEndpoint:
    """The admin calls of one server.

    Args:
        operations: Operations whose state the admin calls read and change.
    """

    def __init__(self, operations: Operations) -> None:
        self._operations = operations
        self._calls: dict[str, Callable[[Call, Body], Body]] = {
            "health": lambda _call, _body: {"ok": True},
            "split": self._split,
            "roll": self._roll,
            "trim": self._trim,
            "ttl": lambda call, _body: {"deleted": sweep_expired(call)},
            "clock": self._clock,
            "shards": self._shards,
            "counters": self._counters,
            "faults": self._faults,
            "reset": self._reset,
            "lag": self._lag,
            "read-capacity": self._read_capacity,
            "bucket": self._bucket,
            "exports": self._exports,
            "kinesis-hold": delivery.hold,
            "kinesis-deliver": delivery.deliver,
            "kinesis-trim": _trim_kinesis,
            "fault-log": lambda _call, _body: {"log": operations.faults.log()},
        }

    def answer(self, request: Request) -> Answer:
        """Carry out one admin call."""
        name = request.path[len(ADMIN_PREFIX) :].partition("?")[0]
        operations = self._operations
        try:
            _require_admin(request)
            operation = self._calls.get(name)
            if operation is None:
                raise not_found(f"No such admin call; known calls: {', '.join(self._calls)}")
            body = decoded(request.body) if request.body else {}
            with operations.store.transaction() as db:
                answer = operation(Call(db, operations.clock, operations.settings), body)
            return Answer(200, msgspec.json.encode(answer))
        except ServiceError as error:
            return Answer(error.status, error.encoded())

    def _split(self, call: Call, body: Body) -> Body:
        return {"children": split_shard(call, _shard(call, body))}

    def _roll(self, call: Call, body: Body) -> Body:
        return {"children": roll_shard(call, _shard(call, body))}

    def _trim(self, call: Call, body: Body) -> Body:
        """Trim by age, or trim one shard through a sequence number."""
        through = optional_text(body, "throughSequenceNumber")
        if through is not None:
            shard = _shard(call, body)
            if not _SEQUENCE.fullmatch(through):
                raise validation("throughSequenceNumber must be a sequence number")
            return {"trimmed": trim_through(call, shard["number"], padded(int(through)))}
        older_than_seconds = body.get("olderThanSeconds", 0.0)
        if not _is_number(older_than_seconds) or older_than_seconds < 0:
            raise validation("olderThanSeconds must be a number of seconds, 0 or more")
        # An age of 0 trims everything, including records written at this very moment.
        edge = 0.001 if older_than_seconds == 0 else 0.0
        horizon = call.clock.now() - older_than_seconds + edge
        return {"trimmed": trim_before(call, horizon, _streams_of(call, body))}

    def _clock(self, call: Call, body: Body) -> Body:
        clock = call.clock
        for name, base in (("offsetSeconds", 0.0), ("advanceSeconds", clock.offset_seconds)):
            seconds = body.get(name)
            if seconds is None:
                continue
            if not _is_number(seconds):
                raise validation(f"{name} must be a number of seconds")
            if abs(base + seconds) > _CLOCK_OFFSET_MAX_SECONDS:
                raise validation(f"{name} would move the clock by more than 10 years")
            clock.offset_seconds = base + seconds
            write_setting(call.db, CLOCK_OFFSET, repr(clock.offset_seconds))
            trim_aged(call)
        return {"now": clock.now(), "offsetSeconds": clock.offset_seconds}

    def _reset(self, call: Call, _body: Body) -> Body:
        """Return to the state of a server just started in an empty directory."""
        erase(call.db)
        call.clock.offset_seconds = 0.0
        self._operations.faults.set_plan(FaultPlan())
        self._operations.reset_counters()
        self._operations.read_limits.clear()
        return {}

    def _lag(self, call: Call, body: Body) -> Body:
        """Let reads that are not consistent lag behind by writes or by seconds."""
        table = find_table(call, text(body, "table"))
        writes, seconds = optional_integer(body, "writes", 0), body.get("seconds")
        if seconds is not None and not (_is_number(seconds) and seconds >= 0):
            raise validation("seconds must be a number of seconds, 0 or more")
        if writes is not None and seconds is not None:
            raise validation("A table lags by writes or by seconds, not by both")
        table = msgspec.structs.replace(table, lag_writes=writes, lag_seconds=seconds)
        save_table(call, table)
        if not table.remembers:
            forget(call, table)
        return {}

    def _bucket(self, call: Call, body: Body) -> Body:
        """Let a folder of this machine stand for a bucket that exports are written to."""
        folder = text(body, "folder")
        if not Path(folder).is_absolute():
            raise validation("folder must be an absolute path")
        write_setting(call.db, BUCKET + text(body, "bucket"), folder)
        return {}

    def _exports(self, call: Call, body: Body) -> Body:
        """Let exports take a number of seconds, or fail."""
        seconds = body.get("seconds", 0.0)
        if not _is_number(seconds) or seconds < 0:
            raise validation("seconds must be a number of seconds, 0 or more")
        write_setting(call.db, EXPORT_SECONDS, repr(float(seconds)))
        write_setting(call.db, EXPORT_FAILS, "1" if body.get("fail") else "0")
        return {}

    def _read_capacity(self, call: Call, body: Body) -> Body:
        """Throttle reads of a table beyond a number of units per second."""
        table = find_table(call, text(body, "table"))
        units = body.get("unitsPerSecond")
        if units is not None and not (_is_number(units) and units > 0):
            raise validation("unitsPerSecond must be a number above 0")
        save_table(call, msgspec.structs.replace(table, read_limit=units))
        self._operations.read_limits.clear()
        return {}

    def _shards(self, call: Call, body: Body) -> Body:
        """Return every shard the stream ever had, with fields that DescribeStream does not show."""
        stream = _stream(call, body)
        rows = call.db.execute(
            "SELECT shards.*, (SELECT count(*) FROM records WHERE shard = shards.number)"
            " AS record_count FROM shards WHERE stream = ? ORDER BY number",
            (stream["number"],),
        )
        return {"streamArn": stream["arn"], "shards": [_shown(row) for row in rows]}

    def _counters(self, _call: Call, body: Body) -> Body:
        counters = self._operations.counters()
        if body.get("reset"):
            self._operations.reset_counters()
        return counters

    def _faults(self, _call: Call, body: Body) -> Body:
        plan = body.get("plan")
        if not isinstance(plan, list):
            raise validation("plan must be a list of faults")
        try:
            self._operations.faults.set_plan(
                FaultPlan.from_json(msgspec.json.encode(plan).decode())
            )
        except DefinitionError as error:
            raise validation(str(error)) from None
        return {"faults": len(plan)}


def _trim_kinesis(call: Call, body: Body) -> Body:
    """Trim every record of a Kinesis stream so far; shards that are closed go too."""
    stream = find_kinesis_stream(call, {"StreamName": text(body, "stream")})
    return {"trimmed": trim_kinesis_before(call, stream, call.clock.now() + 0.001)}


def _require_admin(request: Request) -> None:
    if request.method != "POST":
        raise ServiceError("MethodNotAllowed", "An admin call is a POST request.", status=405)
    if ADMIN_HEADER.lower() not in request.headers:
        raise ServiceError(
            "AccessDeniedException",
            f"An admin call needs the header {ADMIN_HEADER}, which a web page can't send. Nothing "
            "was done.",
            status=403,
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _stream(call: Call, body: Body) -> sqlite3.Row:
    """Return the stream of the request: by ARN, or the newest of the table."""
    arn = optional_text(body, "streamArn")
    if arn is None:
        table = find_table(call, text(body, "table"))
        arn = table.latest_stream_arn
    row: sqlite3.Row | None = call.db.execute(
        "SELECT * FROM streams WHERE arn = ?", (arn,)
    ).fetchone()
    if row is None:
        raise not_found(f"The table has no stream: {body.get('table') or arn}")
    return row


def _streams_of(call: Call, body: Body) -> list[int] | None:
    if body.get("table") is None and body.get("streamArn") is None:
        return None
    return [_stream(call, body)["number"]]


def _shard(call: Call, body: Body) -> sqlite3.Row:
    """Return a shard by id or by index in creation order; by default the oldest open one."""
    stream = _stream(call, body)
    wanted = body.get("shard")
    if isinstance(wanted, bool) or not isinstance(wanted, str | int | None):
        raise validation("shard must be a shard id or an index")
    rows = call.db.execute(
        "SELECT * FROM shards WHERE stream = ? ORDER BY number", (stream["number"],)
    ).fetchall()
    if wanted is None:
        rows = open_shards(call, stream["number"])[:1]
    else:
        rows = [row for i, row in enumerate(rows) if wanted in (i, row["shard_id"])]
    if not rows:
        raise not_found(f"The stream has no such shard: {wanted}")
    found: sqlite3.Row = rows[0]
    return found


def _shown(row: sqlite3.Row) -> Body:
    return {
        "shardId": row["shard_id"],
        "parentShardId": row["parent_id"],
        "open": row["ending"] is None,
        "dropped": bool(row["dropped"]),
        "records": row["record_count"],
        "trimmedThrough": str(int(row["trimmed_through"])) if row["trimmed_through"] else None,
    }
