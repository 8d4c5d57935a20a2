"""Do the columns of a result fit the table of its asset, and what does the table become? Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from datazone_dagster.errors import ResultError, SchemaChangeError
from datazone_dagster.model.asset_write import AssetWrite
from datazone_dagster.model.column_names import has_refused_characters
from datazone_dagster.rows.widening import fits, widest

_NOTHING_WRITTEN = "Nothing was written; the table is as it was."

_KEY_KINDS = (
    pt.is_integer,
    pt.is_string,
    pt.is_decimal,
    pt.is_date,
    pt.is_timestamp,
    pt.is_boolean,
    pt.is_binary,
)


@dataclass(frozen=True)
class TableFit:
    """The schema that a table needs for a result.

    Args:
        schema: Schema of the table with the result in it.
        added: Columns that the table lacks.
        widened: Names of columns that have a wider type in `schema` than in the table.
        missing: Names of columns that the result lacks; they are null in its rows.
        replaces: Whether `schema` is that of the result alone.
    """

    schema: pa.Schema
    added: tuple[pa.Field, ...] = ()
    widened: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    replaces: bool = False


def check_result(result: pa.Schema, write: AssetWrite, *, where: str) -> None:
    """Refuse a result whose columns can't be written or that lacks those which the asset names.

    Args:
        result: Schema of the result, in the types of Delta Lake.
        write: How the result is written.
        where: Name of the asset for errors.

    Raises:
        ResultError: A column is missing, has a name that Delta Lake refuses, or can't be a key.
    """
    seen: dict[str, str] = {}
    for name in result.names:
        other = seen.setdefault(name.casefold(), name)
        if not name or has_refused_characters(name):
            raise ResultError(
                f"{where}: the column name {name!r} is empty or has a character that Delta Lake "
                "refuses (a space or one of ,;{}()= among them).",
                safe=_NOTHING_WRITTEN,
                hint="Rename it: 'order id' as 'order_id'.",
            )
        if len(result.get_all_field_indices(name)) > 1 or other != name:
            raise ResultError(
                f"{where}: two columns are named {other!r} and {name!r}; column names must differ "
                "in more than case.",
                safe=_NOTHING_WRITTEN,
                hint="Rename one of them.",
            )
    _require(result, "key", write.key, where)
    _require(result, "order", (write.order,) if write.order else (), where)
    _require(result, "partition_expr", [column for _, column in write.partition_columns], where)
    _require(result, "partition_by", write.partition_by or (), where)
    if set(result.names) <= set(write.partition_by or ()):
        raise ResultError(
            f"{where}: partition_by names every column, so that the files would have none.",
            safe=_NOTHING_WRITTEN,
            hint="Leave out a column of it.",
        )
    for name in write.key:
        kind = result.field(name).type
        if not any(is_kind(kind) for is_kind in _KEY_KINDS):
            raise ResultError(
                f"{where}: the key column {name!r} is {kind}; numbers with a floating point and "
                "nested values can't be compared exactly.",
                safe=_NOTHING_WRITTEN,
                hint="Cast it to an integer, a decimal or a string.",
            )


def _require(result: pa.Schema, option: str, columns: Iterable[str], where: str) -> None:
    missing = [name for name in columns if name not in result.names]
    if missing:
        raise ResultError(
            f"{where}: {option} names the column {missing[0]!r}, which the result does not have.",
            safe=_NOTHING_WRITTEN,
            hint=f"It has {', '.join(result.names) or 'no columns'}.",
        )


def table_fit(
    table: pa.Schema | None,
    result: pa.Schema,
    *,
    where: str,
    replaces: bool = False,
    partitions: Iterable[str] = (),
) -> TableFit:
    """Return the schema of a table with a result in it: by the policy of datasets.

    New columns are added, types are widened where every value of both types stays exact, and a
    column that the result lacks stays.

    Args:
        table: Schema of the table; None if there is none.
        result: Schema of the result, in the types of Delta Lake.
        where: Name of the asset for errors.
        replaces: Whether the result's schema replaces that of the table.
        partitions: Columns by which the files of the table are partitioned.

    Raises:
        ResultError: The schema to replace that of the table lacks a column of the partitions.
        SchemaChangeError: No type holds the values of both exactly, or a name differs only in case.
    """
    result = pa.schema([one.with_nullable(True) for one in result])
    if replaces:
        _require_partitions(result, tuple(partitions), where)
    if table is None or replaces:
        return TableFit(result, replaces=table is not None and not result.equals(table))
    fields = {one.name: one for one in table}
    folded = {name.casefold(): name for name in fields}
    added: list[pa.Field] = []
    widened: list[str] = []
    for new in result:
        same = folded.get(new.name.casefold())
        if same is None:
            added.append(new)
            continue
        if same != new.name:
            raise SchemaChangeError(
                f"{where}: the result has a column {new.name!r}, the table has {same!r}; Delta "
                "Lake holds names that differ only in case as one.",
                safe=_NOTHING_WRITTEN,
                hint=f"Name it {same!r}, or choose another name.",
            )
        existing = fields[same].type
        if fits(new.type, existing):
            continue
        both = widest(existing, new.type)
        if both is None or same in partitions:
            raise _changed(new, existing, where, is_partition=same in partitions)
        fields[same] = fields[same].with_type(both)
        widened.append(same)
    missing = tuple(name for name in fields if name not in result.names)
    schema = pa.schema([*fields.values(), *added])
    return TableFit(schema, tuple(added), tuple(widened), missing)


def _require_partitions(result: pa.Schema, partitions: Sequence[str], where: str) -> None:
    missing = [name for name in partitions if name not in result.names]
    if missing or (partitions and len(result) == len(partitions)):
        named = ", ".join(map(repr, missing or partitions))
        what = "which the result does not have" if missing else "and the result has no others"
        raise ResultError(
            f"{where}: the files of the table are partitioned by {named}, {what}.",
            safe=_NOTHING_WRITTEN,
            hint='schema_mode="overwrite" replaces the columns, not how files are partitioned. Two '
            "ways out: return that column too, nulls of its type will do, and another one; or "
            "move the folder of the table away, and the next run makes a table without history.",
        )


def _changed(
    new: pa.Field, existing: pa.DataType, where: str, *, is_partition: bool
) -> SchemaChangeError:
    why = (
        "and the files are partitioned by it"
        if is_partition
        else f"and no type holds every value of both exactly: {existing} does not hold {new.type}"
    )
    return SchemaChangeError(
        f"{where}: column {new.name!r} is {existing} in the table and {new.type} in the result, "
        f"{why}.",
        safe=_NOTHING_WRITTEN,
        hint=f"Three ways out: cast it to {existing} in the asset; give it another name; or "
        'replace the table and its schema by one run with metadata={"mode": "overwrite", '
        '"schema_mode": "overwrite"}, without partitions.',
    )


def files_by(write: AssetWrite, result: pa.Schema, *, windows: Iterable[str]) -> tuple[str, ...]:
    """Return the columns by which the files of a new table are partitioned.

    Those of `partition_by`, else those of the asset's partitions, unless a column has times within
    its partition: each would get a folder of its own.

    Args:
        write: How the result is written.
        result: Schema of the result.
        windows: Columns whose partitions are time windows.
    """
    if write.partition_by is not None:
        return write.partition_by
    columns = dict.fromkeys(column for _, column in write.partition_columns)
    timed = set(windows)
    found = tuple(
        name
        for name in columns
        if not (name in timed and pt.is_timestamp(result.field(name).type))
        and not pt.is_binary(result.field(name).type)
    )
    return () if len(found) == len(result) else found  # a file has to have a column
