"""Trim horizon: records live 24 hours, then are trimmed; then their closed shards go."""

from __future__ import annotations

import sqlite3

from datazone_dagster.local.service import Call
from datazone_dagster.model.service_limits import RETENTION

RETENTION_SECONDS = RETENTION.total_seconds()


def trim_aged(call: Call) -> None:
    """Trim records older than 24 hours on the server's clock. Cheap when there are none."""
    horizon = call.clock.now() - RETENTION_SECONDS
    oldest = call.db.execute("SELECT created_at FROM records ORDER BY position LIMIT 1").fetchone()
    aged_shard = call.db.execute(
        "SELECT 1 FROM shards WHERE dropped = 0 AND closed_at < ? LIMIT 1", (horizon,)
    ).fetchone()
    if aged_shard is not None or (oldest is not None and oldest["created_at"] < horizon):
        trim_before(call, horizon)


def trim_before(call: Call, horizon: float, streams: list[int] | None = None) -> int:
    """Trim every record created before a moment and return their number.

    Args:
        call: Context of the request.
        horizon: Moment, in seconds since 1970 on the server's clock.
        streams: Numbers of the streams to trim; None trims all.
    """
    trimmed = 0
    for shard in call.db.execute("SELECT * FROM shards WHERE dropped = 0").fetchall():
        if streams is None or shard["stream"] in streams:
            trimmed += _trim_shard(call, shard, horizon)
    return trimmed


def _trim_shard(call: Call, shard: sqlite3.Row, horizon: float) -> int:
    row = call.db.execute(
        "SELECT max(sequence) AS through FROM records WHERE shard = ? AND created_at < ?",
        (shard["number"], horizon),
    ).fetchone()
    count = 0
    if row["through"] is not None:
        count = trim_through(call, shard["number"], row["through"])
    if shard["closed_at"] is not None and shard["closed_at"] < horizon:
        call.db.execute("UPDATE shards SET dropped = 1 WHERE number = ?", (shard["number"],))
    return count


def trim_through(call: Call, shard: int, through: str) -> int:
    """Trim a shard's records up to and including a sequence number; return their number."""
    cursor = call.db.execute(
        "DELETE FROM records WHERE shard = ? AND sequence <= ?", (shard, through)
    )
    call.db.execute(
        "UPDATE shards SET trimmed_through = max(trimmed_through, ?) WHERE number = ?",
        (through, shard),
    )
    return cursor.rowcount
