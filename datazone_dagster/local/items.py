"""Requests for single items: put, get, update, delete, with conditions and return values."""

from __future__ import annotations

from collections.abc import Sequence

from datazone_dagster.local.expressions.conditions import Condition, condition
from datazone_dagster.local.expressions.projections import project, projection
from datazone_dagster.local.expressions.tokens import Path, Placeholders
from datazone_dagster.local.expressions.updates import Update, update
from datazone_dagster.local.keys import StoredKey, key_of_item, key_of_request
from datazone_dagster.local.rows import change_row, read_row, read_row_as_asked
from datazone_dagster.local.service import (
    Body,
    Call,
    choice,
    member,
    optional_text,
    refuse,
    text,
)
from datazone_dagster.local.service_errors import (
    ServiceError,
    invalid_parameter,
    validation,
)
from datazone_dagster.local.tables import Table, find_table
from datazone_dagster.local.throughput import read_capacity, write_capacity
from datazone_dagster.local.values import Item, checked_item, item_bytes

_LEGACY = ("Expected", "ConditionalOperator", "AttributeUpdates", "AttributesToGet")


def placeholders_of(body: Body) -> Placeholders:
    """Return the names and values of a request.

    Raises:
        ServiceError: Names or values are given without an expression.
    """
    for name in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
        if body.get(name) is not None and not any(key.endswith("Expression") for key in body):
            raise validation(f"{name} can only be specified when using expressions")
        member(body, name)  # anything but a map is an error
    return Placeholders(body.get("ExpressionAttributeNames"), body.get("ExpressionAttributeValues"))


def condition_of(body: Body, placeholders: Placeholders) -> Condition | None:
    """Compile the ConditionExpression; None if there is none."""
    expression = optional_text(body, "ConditionExpression")
    if expression is None:
        return None
    return condition(expression, "ConditionExpression", placeholders)


def require_condition(compiled: Condition | None, old: Item | None, body: Body) -> None:
    """Raise `ConditionalCheckFailedException` unless the condition holds."""
    if compiled is None or compiled(old or {}):
        return
    extra: dict[str, object] = {}
    wanted = choice(body, "ReturnValuesOnConditionCheckFailure", ("NONE", "ALL_OLD"), "NONE")
    if wanted == "ALL_OLD" and old is not None:
        extra["Item"] = old
    raise ServiceError(
        "ConditionalCheckFailedException", "The conditional request failed", extra=extra
    )


def put_item(call: Call, body: Body) -> Body:
    """`PutItem`."""
    refuse(body, *_LEGACY)
    table = find_table(call, text(body, "TableName"))
    wanted = choice(body, "ReturnValues", ("NONE", "ALL_OLD"), "NONE")
    old = put_within(call, table, body)
    answer: Body = {"Attributes": old} if wanted == "ALL_OLD" and old is not None else {}
    return answer | write_capacity(body, table, old, checked_item(body["Item"]))


def put_within(call: Call, table: Table, body: Body) -> Item | None:
    """Check and write a put of PutItem or a transaction; return the old item."""
    placeholders = placeholders_of(body)
    compiled = condition_of(body, placeholders)
    placeholders.require_all_used()
    item = checked_item(body.get("Item"))
    key = key_of_item(table.schema, item)
    old = read_row(call, table, key)
    require_condition(compiled, old, body)
    change_row(call, table, key, old=old, new=item)
    return old


def delete_item(call: Call, body: Body) -> Body:
    """`DeleteItem`."""
    refuse(body, *_LEGACY)
    table = find_table(call, text(body, "TableName"))
    wanted = choice(body, "ReturnValues", ("NONE", "ALL_OLD"), "NONE")
    old = delete_within(call, table, body)
    answer: Body = {"Attributes": old} if wanted == "ALL_OLD" and old is not None else {}
    return answer | write_capacity(body, table, old, None)


def delete_within(call: Call, table: Table, body: Body) -> Item | None:
    """Check and write a delete of DeleteItem or a transaction; return the old item."""
    placeholders = placeholders_of(body)
    compiled = condition_of(body, placeholders)
    placeholders.require_all_used()
    key = key_of_request(table.schema, checked_item(body.get("Key")))
    old = read_row(call, table, key)
    require_condition(compiled, old, body)
    change_row(call, table, key, old=old, new=None)
    return old


def update_item(call: Call, body: Body) -> Body:
    """`UpdateItem`: creates the item if it is absent (one INSERT)."""
    refuse(body, *_LEGACY)
    table = find_table(call, text(body, "TableName"))
    allowed = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
    wanted = choice(body, "ReturnValues", allowed, "NONE")
    old, new, paths = update_within(call, table, body)
    image = old if wanted.endswith("OLD") else new
    answer: Body = {}
    if wanted.startswith("UPDATED"):
        image = project(image, paths) if image is not None else None
    if wanted != "NONE" and image:
        answer["Attributes"] = image
    return answer | write_capacity(body, table, old, new)


def update_within(call: Call, table: Table, body: Body) -> tuple[Item | None, Item, Sequence[Path]]:
    """Check and write an update; return the old item, the new item and the paths written."""
    placeholders = placeholders_of(body)
    compiled = condition_of(body, placeholders)
    expression = optional_text(body, "UpdateExpression")
    change = update(expression, placeholders) if expression is not None else Update()
    placeholders.require_all_used()
    _require_no_key_change(table, change)
    key_item = checked_item(body.get("Key"))
    key = key_of_request(table.schema, key_item)
    old = read_row(call, table, key)
    require_condition(compiled, old, body)
    new = change.apply(old if old is not None else key_item)
    change_row(call, table, key, old=old, new=new)
    return old, new, change.paths


def _require_no_key_change(table: Table, change: Update) -> None:
    for path in change.paths:
        if path[0] in table.schema.names:
            raise invalid_parameter(
                f"Cannot update attribute {path[0]}. This attribute is part of the key"
            )


def get_item(call: Call, body: Body) -> Body:
    """`GetItem`."""
    refuse(body, *_LEGACY)
    table = find_table(call, text(body, "TableName"))
    placeholders = placeholders_of(body)
    expression = optional_text(body, "ProjectionExpression")
    paths = projection(expression, placeholders) if expression is not None else None
    placeholders.require_all_used()
    key: StoredKey = key_of_request(table.schema, checked_item(body.get("Key")))
    item = read_row_as_asked(call, table, key, body)
    size_bytes = item_bytes(item) if item is not None else 0
    answer: Body = read_capacity(call, body, table, size_bytes)
    if item is not None:
        answer["Item"] = project(item, paths) if paths is not None else item
    return answer
