"""How the rows of a result fit the table of their dataset. Pure.

New columns are added. A column may arrive narrower than the table holds it, never wider:
delta-rs would cast in silence (1.5 became 1 in an integer column), so we cast, checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from datazone_dagster.errors import SchemaChangeError
from datazone_dagster.model.columns import HIDDEN


@dataclass(frozen=True)
class SchemaPlan:
    """What has to happen to a table before rows of this shape go in.

    Args:
        schema: The table's schema afterwards.
        added: Fields that the table lacks, in the order of the result.
    """

    schema: pa.Schema
    added: tuple[pa.Field, ...]


def first_schema(rows: pa.Schema) -> pa.Schema:
    """The schema of a new table: the result's columns, then the hidden ones, all nullable."""
    names = [name for name in rows.names if name not in HIDDEN] + list(HIDDEN)
    return pa.schema([_nullable(rows.field(name)) for name in names])


def plan_schema(rows: pa.Table, table: pa.Schema, *, dataset_id: str) -> SchemaPlan:
    """Compare a result with the table.

    Raises:
        SchemaChangeError: A column's type can't be held by the table's, or a new column
            differs from an existing one only in case, which Delta does not allow.
    """
    folded = {name.casefold(): name for name in table.names}
    added = []
    for field in rows.schema:
        existing = folded.get(field.name.casefold())
        if existing is None:
            added.append(_nullable(field))
        elif existing != field.name:
            raise SchemaChangeError(
                f"Dataset {dataset_id!r}: the result has a column {field.name!r}, the table has "
                f"{existing!r}; Delta holds names that differ only in case as one.",
                safe=_NOTHING_LOST,
                hint=f"Name it {existing!r}, or something else.",
            )
        elif not fits(field.type, table.field(existing).type):
            raise _changed(rows, field, table.field(existing), dataset_id)
    return SchemaPlan(pa.schema([*table, *added]), tuple(added))


_NOTHING_LOST = (
    "Nothing of the chunk was applied; the change log keeps it and the next run retries."
)


def _changed(rows: pa.Table, field: pa.Field, held: pa.Field, dataset_id: str) -> SchemaChangeError:
    values = pc.drop_null(rows[field.name])
    example = f" (for example {str(values[0])[:80]!r})" if len(values) else ""
    return SchemaChangeError(
        f"Dataset {dataset_id!r}: column {field.name!r} is {held.type} in the table, but the "
        f"function now returns {field.type}{example}.",
        safe=_NOTHING_LOST,
        hint=f"Cast it to {held.type} in the function, or give the new column another name.",
    )


def fits(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether every value of `source` is exactly a value of `target`."""
    return source.equals(target) or _fits_scalar(source, target) or _fits_nested(source, target)


def _fits_scalar(source: pa.DataType, target: pa.DataType) -> bool:
    same_kind = (pt.is_integer(source) and pt.is_integer(target)) or (
        pt.is_floating(source) and pt.is_floating(target)
    )
    if same_kind:
        return bool(source.bit_width <= target.bit_width)
    if pt.is_decimal(target) and (pt.is_integer(source) or pt.is_decimal(source)):
        scale = source.scale if pt.is_decimal(source) else 0
        precision = source.precision if pt.is_decimal(source) else _DIGITS[source.bit_width]
        whole = target.precision - target.scale >= precision - scale
        return bool(whole and target.scale >= scale)
    return False


def _fits_nested(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_list(source) and pt.is_list(target):
        return fits(source.value_type, target.value_type)
    if pt.is_map(source) and pt.is_map(target):
        return fits(source.key_type, target.key_type) and fits(source.item_type, target.item_type)
    if pt.is_struct(source) and pt.is_struct(target):
        held = {target.field(i).name: target.field(i).type for i in range(target.num_fields)}
        return all(
            source.field(i).name in held and fits(source.field(i).type, held[source.field(i).name])
            for i in range(source.num_fields)
        )
    return False


_DIGITS = {8: 3, 16: 5, 32: 10, 64: 19}
"""Decimal digits that an integer of that many bits may need."""


def aligned(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in the shape of the table: its order, its types, nulls where a column is gone."""
    return pa.Table.from_arrays(
        [
            rows[field.name].cast(field.type, safe=True)
            if field.name in rows.column_names
            else pa.chunked_array([pa.nulls(len(rows), field.type)])
            for field in schema
        ],
        schema=schema,
    )


def with_fields(rows: pa.Table, fields: Sequence[pa.Field]) -> pa.Table:
    """The rows with further columns, all null."""
    for field in fields:
        rows = rows.append_column(field, pa.chunked_array([pa.nulls(len(rows), field.type)]))
    return rows


def _nullable(field: pa.Field) -> pa.Field:
    return field.with_nullable(True)
