"""Rows of a table: read one, change one together with its stream record, delete expired ones."""

from __future__ import annotations

import msgspec

from datazone_dagster.local import history
from datazone_dagster.local.keys import StoredKey, key_of_item
from datazone_dagster.local.kinesis.delivery import send_change
from datazone_dagster.local.service import Body, Call
from datazone_dagster.local.service_errors import validation
from datazone_dagster.local.stream_log import TTL_IDENTITY, append_record
from datazone_dagster.local.tables import Table, all_tables
from datazone_dagster.local.values import ITEM_BYTES_MAX, Item, decimal_of, item_bytes

_FIVE_YEARS_SECONDS = 5 * 365 * 86400


def decode_item(stored: bytes) -> Item:
    """Return a stored item: normalised DynamoDB JSON."""
    item: Item = msgspec.json.decode(stored)
    return item


def read_row(call: Call, table: Table, key: StoredKey) -> Item | None:
    """Return the item under a key, None if it is absent."""
    return history.row(call, table, key, None)


def read_row_as_asked(call: Call, table: Table, key: StoredKey, body: Body) -> Item | None:
    """Return the item under a key as the request reads it: it may lag unless it is consistent."""
    return history.row(call, table, key, history.as_of(call, table, body))


def change_row(
    call: Call,
    table: Table,
    key: StoredKey,
    *,
    old: Item | None,
    new: Item | None,
    identity: dict[str, str] | None = None,
) -> None:
    """Write or delete an item together with its stream record; no change makes no record.

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
    history.remember(call, table, key, old)
    if table.stream_arn is not None:
        append_record(call, table.stream_arn, key, old=old, new=new, identity=identity)
    send_change(call, table, key, old=old, new=new, identity=identity)


def sweep_expired(call: Call) -> int:
    """Delete items whose time to live has passed, as the service does; return their number."""
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
    # The service ignores times more than five years in the past: they are likely not a TTL.
    return now - _FIVE_YEARS_SECONDS < decimal_of(number) <= now
