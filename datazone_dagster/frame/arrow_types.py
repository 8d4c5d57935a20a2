"""Conversion of Arrow types to the fewer types of Delta Lake, without changing any value."""

from __future__ import annotations

from typing import cast

import pyarrow as pa
import pyarrow.types as kinds

from datazone_dagster.errors import ResultError
from datazone_dagster.frame.sql_errors import one_line

DELTA_DECIMAL_DIGITS = 38
_CONVERTED: dict[pa.DataType, pa.DataType] = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
}
_UNCHANGED = (
    kinds.is_boolean,
    kinds.is_signed_integer,
    kinds.is_floating,
    kinds.is_string,
    kinds.is_binary,
    kinds.is_date32,
)


class UnsupportedTypeError(ValueError):
    """A type without a counterpart in Delta Lake. The message names the type and what to do."""


def delta_type(arrow_type: pa.DataType) -> pa.DataType:
    """Return the type that a column is cast to before it is written.

    Unsigned integers widen, timestamps become microseconds in UTC, and dictionaries and views
    become plain arrays. A timestamp without a zone is taken as UTC, the zone of all SQL here: as
    it is, it would need the table feature `timestampNtz`, and raise the table's protocol.

    Raises:
        UnsupportedTypeError: Delta Lake has no such type: times of day, durations, intervals,
            unions, and the null type nested in another type.
    """
    if arrow_type in _CONVERTED:
        return _CONVERTED[arrow_type]
    if any(is_kind(arrow_type) for is_kind in _UNCHANGED):
        return arrow_type
    if isinstance(arrow_type, pa.TimestampType):
        return pa.timestamp("us", tz="UTC")
    if kinds.is_decimal(arrow_type):
        return _decimal(arrow_type)
    return _nested(arrow_type)


def _decimal(arrow_type: pa.DataType) -> pa.DataType:
    decimal = cast("pa.Decimal128Type[int, int]", arrow_type)
    precision, scale = decimal.precision, decimal.scale
    if scale < 0:
        precision, scale = precision - scale, 0
    if scale > DELTA_DECIMAL_DIGITS:
        raise UnsupportedTypeError(f"{arrow_type} has more than 38 decimal places; cast it")
    return pa.decimal128(min(precision, DELTA_DECIMAL_DIGITS), scale)


def _nested(arrow_type: pa.DataType) -> pa.DataType:
    """Return the Delta Lake type for a type that contains other types or wraps one."""
    if kinds.is_fixed_size_binary(arrow_type):
        return pa.binary()
    if isinstance(arrow_type, pa.BaseExtensionType):
        return delta_type(arrow_type.storage_type)
    if isinstance(arrow_type, pa.MapType):
        return pa.map_(delta_type(arrow_type.key_type), delta_type(arrow_type.item_type))
    if isinstance(arrow_type, pa.StructType):
        fields = [arrow_type.field(index) for index in range(arrow_type.num_fields)]
        return pa.struct([pa.field(field.name, delta_type(field.type)) for field in fields])
    value_type = getattr(arrow_type, "value_type", None)
    if isinstance(arrow_type, (pa.DictionaryType, pa.RunEndEncodedType)):
        return delta_type(value_type)
    if value_type is not None:  # every form of list
        return pa.list_(delta_type(value_type))
    if kinds.is_null(arrow_type):
        raise UnsupportedTypeError("the type of its values is unknown; cast it")
    raise UnsupportedTypeError(
        f"Delta Lake has no type for {arrow_type}; cast it to a number, a timestamp or a string"
    )


def as_delta(table: pa.Table, *, where: str) -> pa.Table:
    """Cast a table to the types of Delta Lake, every value unchanged.

    A column of the null type is left out: its type is unknown, and a later chunk may bring one.
    Fields keep their metadata and allow nulls.

    Args:
        table: Arrow table with distinct column names.
        where: Name of the table in errors.

    Raises:
        ResultError: Delta Lake lacks a type, or a value does not fit its type.
    """
    columns: list[pa.ChunkedArray] = []
    fields: list[pa.Field] = []
    for field, column in zip(table.schema, table.columns, strict=True):
        if kinds.is_null(field.type):
            continue
        try:
            target = delta_type(field.type)
            columns.append(column if field.type == target else _cast(column, target))
        except UnsupportedTypeError as error:
            raise ResultError(
                f"{where}: column {field.name!r} can't be written: {error}.",
                safe="Nothing was written.",
            ) from error
        except pa.ArrowException as error:
            raise ResultError(
                f"{where}: column {field.name!r} of type {field.type} holds a value that does "
                f"not fit {delta_type(field.type)}: {one_line(str(error))}.",
                safe="Nothing was written.",
                hint="Round or cast the column in the function.",
            ) from error
        fields.append(pa.field(field.name, target, metadata=field.metadata))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _cast(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    if isinstance(column.type, pa.BaseExtensionType):
        storage = [cast("pa.ExtensionArray", chunk).storage for chunk in column.chunks]
        column = pa.chunked_array(storage, column.type.storage_type)
    if isinstance(column.type, pa.DictionaryType):
        # Its values may need a cast of their own, and Arrow decodes no dictionary of views.
        chunks = [cast("pa.DictionaryArray", chunk) for chunk in column.chunks]
        decoded = [chunk.dictionary.cast(target).take(chunk.indices) for chunk in chunks]
        return pa.chunked_array(decoded, target)
    return column.cast(target)  # safe: an overflow or a lost digit is an error
