"""Rows of a table: read one, change one together with its stream record, TTL deletes."""

from __future__ import annotations

import msgspec

from datazone_dagster.local.keys import StoredKey, key_of_item
from datazone_dagster.local.service import Call
from datazone_dagster.local.service_errors import validation
from datazone_dagster.local.stream_log import TTL_IDENTITY, append_record
from datazone_dagster.local.tables import Table, all_tables
from datazone_dagster.local.values import ITEM_BYTES_MAX, Item, decimal_of, item_bytes

_FIVE_YEARS_SECONDS = 5 * 365 * 86400


def decode_item(stored: bytes) -> Item:
    """An item as it is stored: the DynamoDB JSON, normalised."""
    item: Item = msgspec.json.decode(stored)
    return item


def read_row(call: Call, table: Table, key: StoredKey) -> Item | None:
    """The item under a key."""
    row = call.db.execute(
        "SELECT item FROM items WHERE table_number = ? AND hash = ? AND partition = ? AND sort = ?",
        (table.number, *key),
    ).fetchone()
    return None if row is None else decode_item(row["item"])


def change_row(
    call: Call,
    table: Table,
    key: StoredKey,
    *,
    old: Item | None,
    new: Item | None,
    identity: dict[str, str] | None = None,
) -> None:
    """Write an item (or its absence) and its stream record; no record for no change.

    Raises:
        ServiceError: `ValidationException`: the item is larger than 400 KB.
    """
    if old == new:
        return
    if new is None:
        call.db.execute(
            "DELETE FROM items WHERE table_number = ? AND hash = ? AND partition = ? AND sort = ?",
            (table.number, *key),
        )
    else:
        size_bytes = item_bytes(new)
        if size_bytes > ITEM_BYTES_MAX:
            which = "Item size" if old is None else "Item size to update"
            raise validation(f"{which} has exceeded the maximum allowed size")
        call.db.execute(
            "INSERT OR REPLACE INTO items (table_number, hash, partition, sort, size_bytes, item)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (table.number, *key, size_bytes, msgspec.json.encode(new)),
        )
    if table.stream_arn is not None:
        append_record(call, table.stream_arn, key, old=old, new=new, identity=identity)


def sweep_expired(call: Call) -> int:
    """Delete every item whose time to live is over, as the service does; returns how many."""
    now, deleted = call.clock.now(), 0
    for table in all_tables(call):
        if table.ttl_attribute is None:
            continue
        rows = call.db.execute("SELECT item FROM items WHERE table_number = ?", (table.number,))
        items = (decode_item(row["item"]) for row in rows)
        expired = [item for item in items if _expired(table, item, now)]
        for item in expired:
            key = key_of_item(table.schema, item)
            change_row(call, table, key, old=item, new=None, identity=TTL_IDENTITY)
        deleted += len(expired)
    return deleted


def _expired(table: Table, item: Item, now: float) -> bool:
    number = item.get(table.ttl_attribute or "", {}).get("N")
    if number is None:
        return False
    # The service leaves alone what expired more than five years ago: likely not a TTL.
    return now - _FIVE_YEARS_SECONDS < decimal_of(number) <= now
