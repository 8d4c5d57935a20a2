"""What a table was before: reads as of an earlier write, and what changed between two times.

A write of a table that remembers stores the image before it. The state after a given write is the
present one with every later write undone. So recording costs nothing for other tables, and
nothing has to be copied when it begins.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from datazone_dagster.local.keys import HASH_SPACE, StoredKey
from datazone_dagster.local.service import Body, Call
from datazone_dagster.local.tables import Table
from datazone_dagster.local.values import Item, item_bytes

BEGINNING = StoredKey(-1, b"", b"")
"""Key before every other."""

_EVERYTHING = 2**63 - 1
_FORGET_EVERY = 1_000

_OF_KEY = "table_number = :table AND hash = :hash AND partition = :partition AND sort = :sort"
_WITHIN = "hash >= :low AND hash < :high AND (hash, partition, sort) > (:hash, :partition, :sort)"
_NOW = (
    "SELECT hash, partition, sort, size_bytes, item FROM items"  # noqa: S608 - fixed text
    f" WHERE table_number = :table AND {_WITHIN}"
)
_AS_OF = (
    f"{_NOW} AND NOT EXISTS (SELECT 1 FROM writes WHERE table_number = :table"  # noqa: S608 - fixed text
    " AND writes.hash = items.hash AND writes.partition = items.partition"
    " AND writes.sort = items.sort AND writes.position > :after)"
    " UNION ALL SELECT hash, partition, sort, old_size_bytes, old FROM writes WHERE position IN"
    " (SELECT min(position) FROM writes WHERE table_number = :table AND position > :after"
    f" AND {_WITHIN} GROUP BY hash, partition, sort) AND old IS NOT NULL"
    " ORDER BY 1, 2, 3"
)
_CHANGED = (
    "SELECT hash, partition, sort, min(position) AS first, max(position) AS last, max(at) AS at"
    " FROM writes WHERE table_number = ? AND at >= ? AND at < ? AND hash >= ? AND hash < ?"
    " GROUP BY hash, partition, sort"
    " ORDER BY hash, partition, sort"
)


class NetChange(NamedTuple):
    """State of a key before and after a window, and the time of its last write in it."""

    old: Item | None
    new: Item | None
    at: float


def remember(call: Call, table: Table, key: StoredKey, old: Item | None) -> None:
    """Store the image before a write, if the table remembers."""
    if not table.remembers:
        return
    size_bytes = item_bytes(old) if old is not None else 0
    encoded = msgspec.json.encode(old) if old is not None else None
    cursor = call.db.execute(
        "INSERT INTO writes (table_number, hash, partition, sort, at, old_size_bytes, old)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (table.number, *key, call.clock.now(), size_bytes, encoded),
    )
    if (cursor.lastrowid or 0) % _FORGET_EVERY == 0 and table.recoverable_since is None:
        forget(call, table, through=_last_visible(call, table))


def forget(call: Call, table: Table, *, through: int = _EVERYTHING) -> None:
    """Delete the stored images of a table up to a write; by default all."""
    call.db.execute(
        "DELETE FROM writes WHERE table_number = ? AND position <= ?", (table.number, through)
    )


def position_at(call: Call, table: Table, time: float) -> int:
    """Return the position of the last write before a time; 0 if there is none."""
    row = call.db.execute(
        "SELECT coalesce(max(position), 0) AS position FROM writes"
        " WHERE table_number = ? AND at < ?",
        (table.number, time),
    ).fetchone()
    return int(row["position"])


def _last_visible(call: Call, table: Table) -> int:
    """Return the position of the last write that a lagging read sees."""
    if table.lag_seconds is not None:
        return position_at(call, table, call.clock.now() - table.lag_seconds)
    row = call.db.execute(
        "SELECT position FROM writes WHERE table_number = ? ORDER BY position DESC"
        " LIMIT 1 OFFSET ?",
        (table.number, table.lag_writes or 0),
    ).fetchone()
    return 0 if row is None else int(row["position"])


def as_of(call: Call, table: Table, body: Body) -> int | None:
    """Return the last write that a read sees; None if it sees all, as a consistent read does."""
    lags = table.lag_seconds is not None or table.lag_writes is not None
    return _last_visible(call, table) if lags and not body.get("ConsistentRead") else None


def rows(
    call: Call,
    table: Table,
    after: int | None,
    *,
    low: int = 0,
    high: int = HASH_SPACE,
    start: StoredKey = BEGINNING,
) -> Iterator[sqlite3.Row]:
    """Yield the rows of a range of hashes behind a key, in key order, with `size_bytes` and `item`.

    Args:
        call: Context of the request.
        table: Table to read.
        after: Last write that the read sees; None sees all.
        low: First hash of the range.
        high: End of the range, exclusive.
        start: Key behind which the rows begin.
    """
    bound = {"table": table.number, "low": low, "high": high, **start._asdict()}
    if after is None:
        return call.db.execute(f"{_NOW} ORDER BY hash, partition, sort", bound)
    return call.db.execute(_AS_OF, bound | {"after": after})


def row(call: Call, table: Table, key: StoredKey, after: int | None) -> Item | None:
    """Return the item under a key as of a write (None: now); None if there was none."""
    bound = {"table": table.number, **key._asdict(), "after": after}
    if after is not None:
        undone = call.db.execute(
            f"SELECT old FROM writes WHERE {_OF_KEY} AND position > :after"  # noqa: S608 - fixed text
            " ORDER BY position LIMIT 1",
            bound,
        ).fetchone()
        if undone is not None:
            return _item(undone["old"])
    now = call.db.execute(f"SELECT item FROM items WHERE {_OF_KEY}", bound).fetchone()  # noqa: S608 - fixed text
    return None if now is None else _item(now["item"])


def net_changes(
    call: Call, table: Table, start: float, end: float, *, low: int = 0, high: int = HASH_SPACE
) -> Iterator[NetChange]:
    """Yield one net change per key that was written from `start` to before `end`, in key order.

    Args:
        call: Context of the request.
        table: Table that remembers.
        start: First moment, in seconds since 1970.
        end: End of the window, exclusive.
        low: First hash of the range.
        high: End of the range of hashes, exclusive.
    """
    bound = (table.number, start, end, low, high)
    for changed in call.db.execute(_CHANGED, bound).fetchall():
        key = StoredKey(changed["hash"], changed["partition"], changed["sort"])
        before = call.db.execute(
            "SELECT old FROM writes WHERE position = ?", (changed["first"],)
        ).fetchone()
        new = row(call, table, key, changed["last"])
        yield NetChange(_item(before["old"]), new, changed["at"])


def _item(stored: bytes | None) -> Item | None:
    return None if stored is None else msgspec.json.decode(stored)
