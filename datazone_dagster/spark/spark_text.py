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
    return _TYPES.get(kind)


def any_of(conditions: list[str]) -> str:
    """Return whether one of some conditions, none of which is null, holds."""
    return " OR ".join(f"({one})" for one in conditions) or "false"
