"""Names and times of a result as its table has them. Pure.

A result's names have no character that Delta refuses, and its times are in UTC. Tables of older
versions may have such names, and columns of times without a zone; a contract may declare the
latter. They stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.types as pt

from datazone_dagster.model.column_names import ATTRIBUTE, has_refused_characters

_NO_METADATA: Mapping[bytes, bytes] = {}


def in_stored_form(
    rows: pa.Table, table: pa.Schema, declared: Mapping[str, pa.DataType]
) -> pa.Table:
    """Return the rows with the names and the kinds of time that their columns have.

    Args:
        rows: Rows of a result.
        table: Schema of the table, or the first one of a new table.
        declared: Types that the contract declares, by column.
    """
    names = [_stored_name(field, table) for field in rows.schema]
    columns = []
    for name, values in zip(names, rows.columns, strict=True):
        stored = declared.get(name)
        if stored is None and name in table.names:
            stored = table.field(name).type
        wanted = values.type if stored is None else _with_stored_zones(values.type, stored)
        columns.append(values if wanted.equals(values.type) else values.cast(wanted))
    fields = [
        field.with_name(name).with_type(column.type)
        for field, name, column in zip(rows.schema, names, columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _stored_name(field: pa.Field, table: pa.Schema) -> str:
    original = (field.metadata or _NO_METADATA).get(ATTRIBUTE.encode(), b"").decode()
    is_stored = original in table.names and field.name not in table.names
    return original if is_stored and has_refused_characters(original) else field.name


def _with_stored_zones(new: pa.DataType, stored: pa.DataType) -> pa.DataType:
    """Return a type without time zones wherever the stored type has times without one."""
    if pt.is_timestamp(new) and pt.is_timestamp(stored):
        return stored if stored.tz is None else new
    if pt.is_list(new) and pt.is_list(stored):
        return pa.list_(_with_stored_zones(new.value_type, stored.value_type))
    if pt.is_map(new) and pt.is_map(stored):
        key = _with_stored_zones(new.key_type, stored.key_type)
        return pa.map_(key, _with_stored_zones(new.item_type, stored.item_type))
    if pt.is_struct(new) and pt.is_struct(stored):
        kinds = {stored.field(at).name: stored.field(at).type for at in range(stored.num_fields)}
        fields = [new.field(at) for at in range(new.num_fields)]
        return pa.struct(
            [
                one.with_type(_with_stored_zones(one.type, kinds[one.name]))
                if one.name in kinds
                else one
                for one in fields
            ]
        )
    return new
