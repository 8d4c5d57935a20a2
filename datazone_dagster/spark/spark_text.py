"""Spark SQL of names, texts, numbers and types. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\0": "\\0"})

_TYPES = {
    pa.string(): "STRING",
    pa.bool_(): "BOOLEAN",
    pa.int8(): "TINYINT",
    pa.int16(): "SMALLINT",
    pa.int32(): "INT",
    pa.int64(): "BIGINT",
    pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE",
    pa.binary(): "BINARY",
    pa.date32(): "DATE",
    pa.timestamp("us", tz="UTC"): "TIMESTAMP",
}


def name_of(*parts: str) -> str:
    """Quote a name of any characters, or a column with what it is in."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def text_of(text: str) -> str:
    """Quote a text of any characters."""
    return "'" + text.translate(_ESCAPES) + "'"


def type_of(kind: pa.DataType) -> str | None:
    """Return the Spark type of a column of a dataset; None if there is none that is supported."""
    if pt.is_decimal(kind):
        return f"DECIMAL({kind.precision},{kind.scale})"
    if pt.is_list(kind):
        inner = type_of(kind.value_type)
        return None if inner is None else f"ARRAY<{inner}>"
    if pt.is_struct(kind):
        fields = [(one.name, type_of(one.type)) for one in kind]
        if not fields or any(of is None for _, of in fields):
            return None
        return f"STRUCT<{', '.join(f'{name_of(name)}: {of}' for name, of in fields)}>"
    return _TYPES.get(kind)


def converted(value: str, source: pa.DataType, target: pa.DataType, depth: int = 0) -> str:
    """Return the SQL of a value in a column's type, which may be wider or have more fields.

    Args:
        value: SQL of the value.
        source: Its type.
        target: Type of the column; both are supported.
        depth: Number of lists that the value is inside of.
    """
    if pt.is_struct(source) and pt.is_struct(target):
        fields = {one.name: one.type for one in source}
        parts = []
        for one in target:
            field = f"CAST(NULL AS {type_of(one.type)})"
            if one.name in fields:
                inside = f"{value}.{name_of(one.name)}"
                field = converted(inside, fields[one.name], one.type, depth)
            parts.append(f"{text_of(one.name)}, {field}")
        return f"CASE WHEN {value} IS NOT NULL THEN named_struct({', '.join(parts)}) END"
    if pt.is_list(source) and pt.is_list(target) and not source.equals(target):
        one = f"dz_{depth}"
        inner = converted(one, source.value_type, target.value_type, depth + 1)
        return f"transform({value}, {one} -> {inner})"
    return f"CAST({value} AS {type_of(target)})"


def any_of(conditions: list[str]) -> str:
    """Return whether one of some conditions, none of which is null, holds."""
    return " OR ".join(f"({one})" for one in conditions) or "false"
