"""A table in the type that an asset annotates: all of it, some columns, or some partitions."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from datazone_dagster.dataset.read_dataset import DatasetReader, ReadLimits, restricted
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.partition_slice import PartitionSlice
from datazone_dagster.tables.slice_filter import as_polars, as_sql, tests_of
from datazone_dagster.text import shown

READABLE = (
    "pyarrow.Table, pyarrow.RecordBatchReader, polars.DataFrame, polars.LazyFrame, "
    "pandas.DataFrame, duckdb.DuckDBPyRelation, DatasetReader, one of these with `| None`, or a "
    "dict from partition keys to one of them"
)


def accepts_none(annotated: Any) -> bool:
    """Return whether an annotation allows None: the table may be missing."""
    return type(None) in typing.get_args(annotated)


def by_partition_key(annotated: Any) -> Any | None:
    """Return the type of the values if a mapping is annotated, else None."""
    origin, parts = typing.get_origin(annotated), typing.get_args(annotated)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    return parts[1] if is_mapping and len(parts) == 2 else None


def table_as(
    reader: DatasetReader,
    annotated: Any,
    *,
    parameter: str,
    columns: Sequence[str] | None = None,
    part: PartitionSlice | None = None,
) -> object:
    """Return a table in a type.

    Args:
        reader: The table at one version.
        annotated: The type, or an optional one.
        parameter: Name of the parameter for errors.
        columns: Names of the columns to read; None: all.
        part: Partitions to read; None: all rows.

    Raises:
        DefinitionError: The type is not supported, or there is no such column.
        StorageError: The table can't be read.
    """
    if part is not None:
        missing = [name for name in part.columns if name not in reader.schema.names]
        if missing:
            raise DefinitionError(
                f"The parameter {parameter!r}: the table {reader.dataset_id!r} has no column "
                f"{missing[0]!r}, which its partition_expr names.",
                hint=f"It has {', '.join(reader.schema.names)}.",
            )
        where = f"Asset {reader.dataset_id!r}"
        tests = tests_of(part, reader.schema, where=where)
        limits = ReadLimits(columns, as_sql(tests), lambda polars: as_polars(tests, polars))
    else:
        limits = ReadLimits(columns)
    return _converted(restricted(reader, limits), annotated, parameter)


def _converted(reader: DatasetReader, annotated: Any, parameter: str) -> object:
    choices = [one for one in typing.get_args(annotated) if one is not type(None)]
    if accepts_none(annotated) and len(choices) == 1:
        annotated = choices[0]
    wanted = typing.get_origin(annotated) or annotated
    # Match by name, so that a library is loaded only if its type is annotated.
    module = getattr(wanted, "__module__", "").partition(".")[0].lstrip("_")
    found: object
    match module, getattr(wanted, "__name__", ""):
        case ("pyarrow", "Table") | ("typing" | "builtins", "Any" | "object") | ("", ""):
            found = reader.arrow()
        case "pyarrow", "RecordBatchReader":
            found = reader.batches()
        case "polars", "DataFrame":
            found = reader.pl()
        case "polars", "LazyFrame":
            found = reader.lazy()
        case "pandas", "DataFrame":
            found = reader.arrow().to_pandas()
        case "duckdb", "DuckDBPyRelation":
            found = reader.duckdb()
        case "datazone_dagster", "DatasetReader":
            found = reader
        case _:
            raise DefinitionError(
                f"The parameter {parameter!r} is annotated as {shown(repr(annotated))}, which is "
                "not supported.",
                hint=f"Annotate it as {READABLE}.",
            )
    return found
