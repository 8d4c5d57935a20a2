"""Conversion of a dataset of `items()` back to items, from the table alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from datazone_dagster.model.attributes import AttributeColumn, AttributeMapping
from datazone_dagster.model.column_names import REST


def item_of(row: Mapping[str, Any], mapping: AttributeMapping) -> dict[str, Any]:
    """Return the item of a row, without the attributes that are NULL."""
    item: dict[str, Any] = {}
    for column in mapping:
        value = row.get(column.column)
        if value is not None:
            assert column.attribute not in item, "one value is in two columns"
            item[column.attribute] = _value(column, value)
    if row.get(REST) is not None:
        item |= _json(row[REST])
    return item


def _value(column: AttributeColumn, value: Any) -> Any:
    if column.type == "json":
        return _json(value)
    if column.type == "binary":
        return bytes(value)
    if column.type == "list<binary>":
        return [bytes(member) for member in value]
    if column.exact and column.descriptor == "N":
        return Decimal(value)
    if column.exact and column.descriptor == "NS":
        return [Decimal(member) for member in value]
    return value


def _json(text: str) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)
