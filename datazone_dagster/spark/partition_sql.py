"""Partition values that Spark leaves to the library's own engine, as Spark SQL. Pure.

The folder of a partition has the value in its name, and some readers take it from there. A value
that has no exact name is quarantined, or fails the run, by the library's own engine only.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.types as pt

from datazone_dagster.model.partition_folder import MOST_BYTES, NULL_PARTITION, encoded_bytes
from datazone_dagster.spark.spark_text import any_of, name_of, text_of

_PLAIN = "[^A-Za-z0-9_.~-]"
"""Characters that are more than one byte in a percent-encoded name."""

_ZERO = "\0"
"""Character that no file name has, and that Spark does not encode."""

_FIRST_DAY, _LAST_DAY = "DATE '0001-01-01'", "DATE '9999-12-31'"


def is_spelled_alike(kind: pa.DataType) -> bool:
    """Return whether both engines spell every partition value of a type alike.

    Times are not: Polars can't read those of Spark from the names of folders (measured, 1.x).
    """
    return bool(
        pt.is_string(kind)
        or pt.is_boolean(kind)
        or pt.is_integer(kind)
        or pt.is_decimal(kind)
        or pt.is_date32(kind)
    )


def has_no_folder(columns: Iterable[pa.Field]) -> str:
    """Return the SQL of whether a row has a value that can't be a partition's; never null."""
    return any_of([f"coalesce({_has_none(one)}, false)" for one in columns])


def _has_none(column: pa.Field) -> str:
    value = name_of(column.name)
    if pt.is_string(column.type):
        plain = f"octet_length(regexp_replace({value}, {text_of(_PLAIN)}, ''))"
        room = MOST_BYTES - encoded_bytes(column.name) - len("=")
        return (
            f"{value} IN ('', {text_of(NULL_PARTITION)}) OR contains({value}, {text_of(_ZERO)}) "
            f"OR 3 * octet_length({value}) - 2 * {plain} > {room}"
        )
    if pt.is_date32(column.type):
        return f"{value} NOT BETWEEN {_FIRST_DAY} AND {_LAST_DAY}"
    return "false"
