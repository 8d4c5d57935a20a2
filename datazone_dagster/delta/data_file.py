"""New data files: Parquet as other readers expect it, with statistics and partition values.

Statistics come from the Parquet footers, so they cost no pass over the data. Bounds are always
true bounds. Long strings are bounded by a prefix below and one above, times by the millisecond
below and the one above. Values without a known bound (NaN, binary) have none.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from datazone_dagster.delta.store import TableStore
from datazone_dagster.model.partition_folder import folder_name

ROW_GROUP_ROWS = 1 << 20
ROW_GROUP_BYTES = 64 << 20
"""Bounds of a row group, decoded. Each row group has a fixed cost for readers and key lookups, so
small ones are slow; one row group is in memory while it is written."""

COMPRESSION_LEVEL = 1

SAMPLE_ROWS = 1 << 16
REPEATING_SHARE = 0.8
"""A column gets a dictionary if its share of distinct values in a sample is below this one. Other
dictionaries outgrow the size that writers allow (1 MiB), cost time, and make files larger."""

TEXT_SAMPLE_ROWS = 1 << 12
TEXT_REPEATING_SHARE = 0.945
"""The same for texts. Fewer of them than of numbers reach that size: they should repeat among
16,384. Counting that many takes long, and values that are distinct to 80 % there are distinct to
94.5 % in a quarter of them, if all are equally frequent."""

SAMPLE_BYTES = 4 << 20
"""Bytes of a column's sample, which is in memory a second time while its distinct values are
counted. Writers allow a quarter of this for a dictionary."""

BOUND_CHARS = 32
"""Strings in bounds are cut to this length, as Spark does: the log repeats them for every file."""

_RowGroup = TypeVar("_RowGroup")

_JSON = msgspec.json.Encoder(decimal_format="number")
_EXACT = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
_EDGES = (0xD7FF, 0xFFFF, 0x10FFFF)
"""Characters whose successor sorts differently in UTF-8 and UTF-16, or does not exist."""


def by_partition(
    rows: pa.Table, columns: tuple[str, ...]
) -> Iterator[tuple[dict[str, str | None], pa.Table]]:
    """Yield the partition values, as spelled in the log, and the rows of each partition."""
    if not columns:
        yield {}, rows
        return
    positions = pa.array(np.arange(len(rows)))
    groups = (
        rows.select(columns)
        .append_column("", positions)
        .group_by(list(columns), use_threads=False)
        .aggregate([("", "list")])
    )
    spelled: dict[tuple[str | None, ...], list[int]] = {}
    for group in groups.to_pylist():
        values = tuple(partition_text(group[column]) for column in columns)
        spelled.setdefault(values, []).extend(group["_list"])
    for values, members in spelled.items():
        yield dict(zip(columns, values, strict=True)), rows.take(pa.array(members, pa.int64()))


def partition_text(value: object) -> str | None:
    """Spell a partition value as in the log (Delta protocol, "Partition Value Serialization")."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return _utc(value).isoformat(" ", "microseconds")
    if isinstance(value, Decimal):
        return format(value, "f")
    return value.isoformat() if isinstance(value, date) else str(value)


def write_data_file(
    store: TableStore,
    schema: pa.Schema,
    partition_values: Mapping[str, str | None],
    batches: Iterable[pa.RecordBatch],
    *,
    data_change: bool = True,
    plain_columns: tuple[str, ...] = (),
    row_group_bytes: int = ROW_GROUP_BYTES,
) -> dict[str, Any] | None:
    """Write one file, and return its add action; None, and no file, if there are no rows.

    Args:
        store: Folder of the table.
        schema: Schema of the table; partition columns are not written to the file.
        partition_values: Partition values of all rows, as spelled in the log.
        batches: Rows in the table's schema, some thousand at a time.
        data_change: False if the rows were in the table before.
        plain_columns: Columns known not to be worth a dictionary; for the others, a sample
            decides.
        row_group_bytes: Bound of a row group, decoded; memory holds one of them several times.

    Raises:
        OSError: The store failed. A file that was begun is an orphan.
    """
    stored = pa.schema([field for field in schema if field.name not in partition_values])
    filled = (batch for batch in batches if batch.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    folders = [folder_name(name, value) for name, value in partition_values.items()]
    path = "/".join((*folders, f"part-00000-{uuid.uuid4()}-c000.zstd.parquet"))
    batches = (batch.select(stored.names) for batch in _and_then(first, filled))
    groups = _groups(batches, row_group_bytes)
    first_group = next(groups)
    footers: list[pq.FileMetaData] = []
    unbounded: set[str] = set()
    with store.open_output(path) as handle:
        with pq.ParquetWriter(
            handle,
            stored,
            compression="zstd",
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=_repeating(first_group, plain_columns),
            store_schema=False,
            metadata_collector=footers,
        ) as writer:
            for rows in _and_then(first_group, groups):
                unbounded |= _with_nan(rows)
                writer.write_table(rows, row_group_size=ROW_GROUP_ROWS)
        size_bytes = handle.tell()
    return {
        "path": quote(path, safe="/=-_.~"),
        "partitionValues": dict(partition_values),
        "size": size_bytes,
        "modificationTime": int(time.time() * 1000),
        "dataChange": data_change,
        "stats": _statistics(footers[0], stored, unbounded),
    }


def wide_bounds(stats: str | None, num_records: int) -> str:
    """Return the statistics of a file with deleted rows: its bounds may be too wide."""
    found = _EXACT.decode(stats) if stats else {}
    found.update(numRecords=num_records, tightBounds=False)
    return _JSON.encode(found).decode()


def _and_then(first: _RowGroup, others: Iterable[_RowGroup]) -> Iterator[_RowGroup]:
    yield first
    yield from others


def _repeating(rows: pa.Table, plain_columns: tuple[str, ...]) -> list[str]:
    """Return the Parquet columns that are worth a dictionary, judged by the first rows."""
    found: list[str] = []
    for field, column in zip(rows.schema, rows.columns, strict=True):
        if field.name in plain_columns:
            continue
        if pt.is_nested(field.type):
            found += _paths(field)
            continue
        most_rows, most_share = SAMPLE_ROWS, REPEATING_SHARE
        if not pt.is_primitive(field.type):
            most_rows, most_share = TEXT_SAMPLE_ROWS, TEXT_REPEATING_SHARE
        value_bytes = column.nbytes // len(column) + 1
        sample = column.slice(0, min(most_rows, SAMPLE_BYTES // value_bytes + 1))
        if pc.count_distinct(sample).as_py() < most_share * (len(sample) - sample.null_count):
            found.append(field.name)
    return found


def _paths(field: pa.Field) -> Iterator[str]:
    """Yield the Parquet names of the columns of a nested field."""
    kind = field.type
    inner: list[tuple[str, pa.Field]] = []
    if pt.is_struct(kind):
        inner = [("", kind.field(number)) for number in range(kind.num_fields)]
    elif pt.is_map(kind):
        inner = [
            ("key_value.", kind.key_field.with_name("key")),
            ("key_value.", kind.item_field.with_name("value")),
        ]
    elif pt.is_list(kind) or pt.is_large_list(kind):
        inner = [("list.", kind.value_field.with_name("element"))]
    else:
        yield field.name
    for above, one in inner:
        yield from (f"{field.name}.{above}{path}" for path in _paths(one))


def _groups(batches: Iterable[pa.RecordBatch], most_bytes: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of row group size: each table is written as one row group."""
    pending: list[pa.RecordBatch] = []
    pending_rows = pending_bytes = 0
    for batch in batches:
        full = pending_rows + batch.num_rows > ROW_GROUP_ROWS
        if pending and (full or pending_bytes + batch.nbytes > most_bytes):
            yield pa.Table.from_batches(pending)
            pending, pending_rows, pending_bytes = [], 0, 0
        pending.append(batch)
        pending_rows += batch.num_rows
        pending_bytes += batch.nbytes
    yield pa.Table.from_batches(pending)


def _with_nan(rows: pa.Table) -> set[str]:
    """Return columns with NaN, which Spark sorts above all numbers and Parquet's bounds ignore."""
    return {
        field.name
        for field, column in zip(rows.schema, rows.columns, strict=True)
        if pt.is_floating(field.type) and pc.any(pc.is_nan(column)).as_py()
    }


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A column of the Parquet file; Parquet orders them as the schema does, depth first."""

    path: tuple[str, ...]
    type: pa.DataType
    counted: bool
    bounded: bool


def _leaves(
    schema: Iterable[pa.Field], above: tuple[str, ...] = (), counted: bool = True
) -> Iterator[_Leaf]:
    for field in schema:
        path, kind = (*above, field.name), field.type
        if pt.is_struct(kind):
            yield from _leaves([kind.field(i) for i in range(kind.num_fields)], path, counted)
        elif pt.is_map(kind):
            yield from _leaves([kind.key_field, kind.item_field], path, False)
        elif pt.is_list(kind) or pt.is_large_list(kind):
            yield from _leaves([kind.value_field], path, False)
        else:
            # Only top-level columns are searched for NaN.
            bounded = counted and not (above and pt.is_floating(kind))
            yield _Leaf(path, kind, counted, bounded)


def _statistics(footer: pq.FileMetaData, schema: pa.Schema, unbounded: set[str]) -> str:
    minimum: dict[str, Any] = {}
    maximum: dict[str, Any] = {}
    nulls: dict[str, Any] = {}
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    for index, leaf in enumerate(_leaves(schema)):
        if not leaf.counted:
            continue
        found = [group.column(index).statistics for group in groups]
        if all(one is not None and one.has_null_count for one in found):
            _put(nulls, leaf.path, sum(one.null_count for one in found))
        if not leaf.bounded or leaf.path[0] in unbounded or pt.is_binary(leaf.type):
            continue
        # A row group without bounds has only nulls, or values too long for the footer.
        valued = [
            one
            for one, group in zip(found, groups, strict=True)
            if one is not None and not (one.has_null_count and one.null_count == group.num_rows)
        ]
        if valued and all(one.has_min_max for one in valued):
            least, most = _span(valued)
            lower, upper = _lower(least), _upper(most)
            if lower is not None:
                _put(minimum, leaf.path, lower)
            if upper is not None:
                _put(maximum, leaf.path, upper)
    return _JSON.encode(
        {
            "numRecords": footer.num_rows,
            "minValues": minimum,
            "maxValues": maximum,
            "nullCount": nulls,
            "tightBounds": True,
        }
    ).decode()


def _span(valued: list[pq.Statistics]) -> tuple[Any, Any]:
    """Return the lowest and the highest value; None for times after the year 9999.

    Python can't represent such times. They arise from milliseconds taken for seconds, and from
    DuckDB's infinity.
    """
    try:
        return min(one.min for one in valued), max(one.max for one in valued)
    except OverflowError:
        return None, None


def _put(tree: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def _lower(value: Any) -> Any:
    if isinstance(value, str):
        return value[:BOUND_CHARS]
    if isinstance(value, datetime):
        return _milliseconds(value)
    return _plain(value)


def _upper(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= BOUND_CHARS else above_prefix(value[:BOUND_CHARS])
    if isinstance(value, datetime):
        floored = value.replace(microsecond=value.microsecond // 1000 * 1000)
        try:
            return _milliseconds(floored + timedelta(milliseconds=floored < value))
        except OverflowError:
            return None  # the last millisecond of the year 9999, which often means "for good"
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity
    return value.isoformat() if isinstance(value, date) else value


def _milliseconds(value: datetime) -> str:
    return _utc(value).isoformat("T", "milliseconds") + ("Z" if value.tzinfo else "")


def _utc(value: datetime) -> datetime:
    # No strftime: it writes the year 1, which many systems use for "none", with one digit.
    return value.astimezone(timezone.utc).replace(tzinfo=None) if value.tzinfo else value


def above_prefix(prefix: str) -> str | None:
    """Return a string that sorts above every string with `prefix`; None if there is none.

    The result holds for UTF-8 and UTF-16 order. The last character is replaced by its successor;
    last characters without a successor are dropped.
    """
    while prefix and ord(prefix[-1]) in _EDGES:
        prefix = prefix[:-1]
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None
