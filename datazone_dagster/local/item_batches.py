"""Requests for several items: BatchWriteItem, BatchGetItem, TransactWriteItems."""

from __future__ import annotations

from collections.abc import Callable

from datazone_dagster.local.expressions.projections import project, projection
from datazone_dagster.local.items import (
    condition_of,
    delete_within,
    placeholders_of,
    put_within,
    require_condition,
    update_within,
)
from datazone_dagster.local.keys import StoredKey, key_of_item, key_of_request
from datazone_dagster.local.rows import change_row, read_row, read_row_as_asked
from datazone_dagster.local.service import Body, Call, member, members, optional_text, text
from datazone_dagster.local.service_errors import ServiceError, validation
from datazone_dagster.local.tables import Table, find_table
from datazone_dagster.local.throughput import consumed_by_tables, exceeded, read_units, spend
from datazone_dagster.local.values import Item, checked_item, item_bytes

_BATCH_WRITES_MAX, _BATCH_READS_MAX, _TRANSACTION_MAX = 25, 100, 100
BATCH_BYTES = 16 * 1024 * 1024


def batch_write_item(call: Call, body: Body) -> Body:
    """`BatchWriteItem`: up to 25 puts and deletes. Nothing is left unprocessed."""
    requests = member(body, "RequestItems")
    writes: list[tuple[Table, StoredKey, Item | None]] = []
    for name in requests:
        table = find_table(call, name)
        writes.extend(_batched(table, request) for request in members(requests, name))
    if not 1 <= len(writes) <= _BATCH_WRITES_MAX:
        raise validation(f"A batch takes 1 to {_BATCH_WRITES_MAX} write requests")
    if len({(table.number, key) for table, key, _ in writes}) < len(writes):
        raise validation("Provided list of item keys contains duplicates")
    for table, key, item in writes:
        change_row(call, table, key, old=read_row(call, table, key), new=item)
    return {"UnprocessedItems": {}}


def _batched(table: Table, request: Body) -> tuple[Table, StoredKey, Item | None]:
    if request.keys() == {"PutRequest"}:
        item = checked_item(member(request, "PutRequest").get("Item"))
        return table, key_of_item(table.schema, item), item
    if request.keys() == {"DeleteRequest"}:
        key = checked_item(member(request, "DeleteRequest").get("Key"))
        return table, key_of_request(table.schema, key), None
    raise validation(
        "Supplied WriteRequest must contain exactly one of PutRequest and DeleteRequest"
    )


def batch_get_item(call: Call, body: Body) -> Body:
    """`BatchGetItem`: up to 100 keys and 16 MB; the rest is left unprocessed, as in the service."""
    requests = member(body, "RequestItems")
    reads = [_BatchRead(call, name, member(requests, name)) for name in requests]
    if not 1 <= sum(len(read.keys) for read in reads) <= _BATCH_READS_MAX:
        raise validation(f"A batch takes 1 to {_BATCH_READS_MAX} keys")
    size_bytes = 0
    for read in reads:
        size_bytes += read.take(call, BATCH_BYTES - size_bytes)
    if not any(read.units for read in reads):
        raise exceeded()
    consumed = consumed_by_tables(body, [(read.table, read.units) for read in reads])
    return {
        "Responses": {read.name: read.found for read in reads},
        "UnprocessedKeys": {read.name: read.rest() for read in reads if read.unread},
        **consumed,
    }


class _BatchRead:
    """Keys of one table in a BatchGetItem."""

    def __init__(self, call: Call, name: str, request: Body) -> None:
        self.name, self._request = name, request
        self.table = find_table(call, name)
        placeholders = placeholders_of(request)
        expression = optional_text(request, "ProjectionExpression")
        self._paths = projection(expression, placeholders) if expression is not None else None
        placeholders.require_all_used()
        schema = self.table.schema
        given = members(request, "Keys")
        self.keys = [key_of_request(schema, checked_item(key)) for key in given]
        if len(set(self.keys)) < len(self.keys):
            raise validation("Provided list of item keys contains duplicates")
        self.unread = given
        self.found: list[Item] = []
        self.units = 0.0

    def take(self, call: Call, budget_bytes: int) -> int:
        """Read keys until the bytes or the capacity are used up; return the bytes read."""
        read_bytes = 0
        for key in self.keys:
            if read_bytes >= budget_bytes:
                break
            item = read_row_as_asked(call, self.table, key, self._request)
            size_bytes = item_bytes(item) if item is not None else 0
            units = read_units(self._request, size_bytes)
            if not spend(call, self.table, units):
                break
            read_bytes += size_bytes
            self.units += units
            self.unread = self.unread[1:]
            if item is not None:
                self.found.append(project(item, self._paths) if self._paths is not None else item)
        return read_bytes

    def rest(self) -> Body:
        """Return the request for the keys that were not read."""
        return self._request | {"Keys": self.unread}


def transact_write_items(call: Call, body: Body) -> Body:
    """`TransactWriteItems`: up to 100 actions, all or none.

    A client request token is accepted but not stored: a request sent twice writes twice.
    """
    actions = members(body, "TransactItems")
    if not 1 <= len(actions) <= _TRANSACTION_MAX:
        raise validation(f"A transaction takes 1 to {_TRANSACTION_MAX} actions")
    reasons: list[Body] = []
    seen: set[tuple[int, StoredKey]] = set()
    for action in actions:
        if len(action) != 1 or not action.keys() <= _ACTIONS.keys():
            raise validation(f"A transaction's action is one of {', '.join(_ACTIONS)}")
        ((kind, request),) = action.items()
        table = find_table(call, text(request, "TableName"))
        key = _key_of_action(table, kind, request)
        if (table.number, key) in seen:
            raise validation("Transaction request cannot include multiple operations on one item")
        seen.add((table.number, key))
        reasons.append(_attempt(call, table, kind, request))
    if any(reason["Code"] != "None" for reason in reasons):
        codes = ", ".join(reason["Code"] for reason in reasons)
        # The error rolls the request's transaction back: nothing was written.
        raise ServiceError(
            "TransactionCanceledException",
            "Transaction cancelled, please refer cancellation reasons for specific reasons "
            f"[{codes}]",
            extra={"CancellationReasons": reasons},
        )
    return {}


def _key_of_action(table: Table, kind: str, request: Body) -> StoredKey:
    if kind == "Put":
        return key_of_item(table.schema, checked_item(request.get("Item")))
    return key_of_request(table.schema, checked_item(request.get("Key")))


def _attempt(call: Call, table: Table, kind: str, request: Body) -> Body:
    try:
        _ACTIONS[kind](call, table, request)
    except ServiceError as error:
        if error.code != "ConditionalCheckFailedException":
            raise
        return {"Code": "ConditionalCheckFailed", "Message": error.message, **error.extra}
    return {"Code": "None"}


def _check(call: Call, table: Table, request: Body) -> None:
    placeholders = placeholders_of(request)
    compiled = condition_of(request, placeholders)
    placeholders.require_all_used()
    if compiled is None:
        raise validation("A ConditionCheck needs a ConditionExpression")
    key = key_of_request(table.schema, checked_item(request.get("Key")))
    require_condition(compiled, read_row(call, table, key), request)


_ACTIONS: dict[str, Callable[[Call, Table, Body], object]] = {
    "Put": put_within,
    "Delete": delete_within,
    "Update": update_within,
    "ConditionCheck": _check,
}
