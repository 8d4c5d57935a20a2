"""Names of column types as a cast in a transform's SQL takes them. Pure."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.types as pt

_NAMES = {pa.int8(): "tinyint", pa.date32(): "date", pa.time64("us"): "time"}
"""Types whose name in Arrow is another type in SQL, or none. There, `int8` has eight bytes."""


def sql_type(kind: pa.DataType) -> str:
    """Return the name of a type in SQL.

    Example:
        That of `decimal128(9, 2)` is `decimal(9, 2)`.
    """
    if pt.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pt.is_timestamp(kind):
        return "timestamp" if kind.tz is None else "timestamptz"
    if pt.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pt.is_map(kind):
        return f"map({sql_type(kind.key_type)}, {sql_type(kind.item_type)})"
    if pt.is_struct(kind):
        return f"struct({', '.join(f'{_quoted(one.name)} {sql_type(one.type)}' for one in kind)})"
    return _NAMES.get(kind, str(kind))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
