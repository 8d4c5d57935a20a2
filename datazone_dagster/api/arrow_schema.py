"""Conversion of a pyarrow schema to declared columns. Loads nothing: the schema has it all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datazone_dagster.api.checked import unsupported
from datazone_dagster.model.contract import Column, ColumnType

_SCALARS = {
    "string": "string",
    "large_string": "string",
    "string_view": "string",
    "binary": "binary",
    "large_binary": "binary",
    "binary_view": "binary",
    "bool": "bool",
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "uint8": "int16",
    "uint16": "int32",
    "uint32": "int64",
    "halffloat": "float32",
    "float": "float32",
    "double": "float64",
    "date32[day]": "date",
    "date64[ms]": "date",
}
_MAX_DIGITS = 38


def arrow_columns(where: str, schema: Any) -> tuple[Column, ...]:
    """Return the columns of a `pyarrow.Schema`.

    Raises:
        DefinitionError: A field has a type that Delta does not support.
    """
    return tuple(
        Column(
            field.name,
            _type(where, field.name, field.type),
            bool(field.nullable),
            _description(field.metadata),
        )
        for field in schema
    )


def _description(metadata: Mapping[bytes, bytes] | None) -> str | None:
    """Return the text that a field carries under the key that Arrow's own tools use."""
    text = (metadata or {}).get(b"description")
    return None if text is None else text.decode("utf-8", "replace")


def _type(where: str, column: str, kind: Any) -> ColumnType:
    text = str(kind)
    found = _SCALARS.get(text) or _parametric(text, kind) or _nested(where, column, text, kind)
    if found is None:
        raise unsupported(
            where,
            column,
            text,
            "Use a number, string, binary, bool, date or timestamp type, or lists, maps and "
            "structs of these.",
        )
    return found


def _parametric(text: str, kind: Any) -> ColumnType | None:
    if text.startswith("timestamp["):
        return "timestamp" if kind.tz else "timestamp_ntz"
    if text.startswith("decimal") and 0 <= kind.scale <= kind.precision <= _MAX_DIGITS:
        return ("decimal", kind.precision, kind.scale)
    return None


def _nested(where: str, column: str, text: str, kind: Any) -> ColumnType | None:
    if text.startswith("struct<"):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        return ("struct", tuple((one.name, _type(where, column, one.type)) for one in fields))
    if text.startswith("map<"):
        key, item = _type(where, column, kind.key_type), _type(where, column, kind.item_type)
        return ("map", key, item)
    if text.startswith(("list<", "large_list<", "fixed_size_list<", "list_view<")):
        return ("list", _type(where, column, kind.value_type))
    if text.startswith("dictionary<"):
        return _type(where, column, kind.value_type)
    return None
