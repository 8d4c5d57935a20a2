"""The rows of a slice as filters: for Arrow, for scans of a table, for Polars. Pure.

The type of a column decides how a partition is compared with it: times and dates by the window of
the partition, everything else by its key. A window that the column can't tell from its neighbours
is refused: replacing it would remove their rows.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timezone
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.partition_slice import Condition, PartitionSlice
from datazone_dagster.text import shown


@dataclass(frozen=True)
class Test:
    """Test of one column: its value is one of `values`, or within one of `ranges`.

    Args:
        column: Name of the column.
        values: Values in the type of the column.
        ranges: Bounds in the type of the column; the second one is not included.
    """

    column: str
    values: pa.Array | None = None
    ranges: tuple[tuple[pa.Scalar, pa.Scalar], ...] = ()


Tests = tuple[tuple[Test, ...], ...]
"""A row is in the slice if it passes every test of one of the tuples."""


def tests_of(one: PartitionSlice, schema: pa.Schema, *, where: str) -> Tests:
    """Return the tests of a slice for columns of these types.

    Args:
        one: The slice.
        schema: Schema with the columns of the slice.
        where: Name of the table for errors.

    Raises:
        DefinitionError: A column's type can't tell the partitions apart.
    """
    return tuple(
        tuple(_test(condition, schema.field(condition.column).type, where) for condition in all_of)
        for all_of in one.alternatives
    )


def _test(condition: Condition, kind: pa.DataType, where: str) -> Test:
    if condition.windows and pt.is_timestamp(kind):
        return Test(
            condition.column,
            ranges=tuple((_moment(a, kind), _moment(b, kind)) for a, b in condition.windows),
        )
    if condition.windows and pt.is_date(kind):
        if any(one.time() != time() for window in condition.windows for one in window):
            raise DefinitionError(
                f"{where}: its partitions are shorter than a day, and the column "
                f"{condition.column!r} is a date: it can't tell them apart.",
                safe="Nothing was written.",
                hint="Name a column of timestamps in partition_expr.",
            )
        return Test(
            condition.column,
            ranges=tuple(
                (pa.scalar(a.date(), kind), pa.scalar(b.date(), kind)) for a, b in condition.windows
            ),
        )
    return Test(condition.column, values=_keys(condition, kind, where))


def _moment(moment: datetime, kind: pa.TimestampType) -> pa.Scalar:
    return pa.scalar(moment if kind.tz else moment.replace(tzinfo=None), kind)


def _keys(condition: Condition, kind: pa.DataType, where: str) -> pa.Array:
    try:
        return pa.array(condition.keys, pa.string()).cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DefinitionError(
            f"{where}: the partition {shown(condition.keys[0])!r} is no value of the column "
            f"{condition.column!r}, which is {kind}.",
            safe="Nothing was written.",
            hint="Name the column that has the partition keys as its values in partition_expr.",
        ) from error


def as_expression(tests: Tests) -> pc.Expression:
    """Return the filter of Arrow tables."""

    def one(test: Test) -> pc.Expression:
        field = pc.field(test.column)
        if test.values is not None:
            return field.isin(test.values)
        return _any((field >= low) & (field < high) for low, high in test.ranges)

    return _any(reduce(operator.and_, map(one, all_of)) for all_of in tests)


def _any(expressions: Iterator[pc.Expression]) -> pc.Expression:
    return reduce(operator.or_, expressions)


def as_sql(tests: Tests) -> str:
    """Return the predicate of a scan of a table (DataFusion's dialect)."""

    def one(test: Test) -> str:
        name = _quoted(test.column)
        if test.values is not None:
            return f"{name} in ({', '.join(map(_literal, test.values))})"
        return _either(
            f"({name} >= {_literal(low)} and {name} < {_literal(high)})"
            for low, high in test.ranges
        )

    return _either(f"({' and '.join(map(one, all_of))})" for all_of in tests)


def _either(texts: Iterator[str]) -> str:
    return f"({' or '.join(texts)})"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: pa.Scalar) -> str:
    kind = value.type
    if pt.is_timestamp(kind):
        moment = value.as_py()
        if kind.tz:
            zoned = moment.astimezone(timezone.utc).isoformat()
            return f"arrow_cast('{zoned}', 'Timestamp(Microsecond, Some(\"UTC\"))')"
        return f"arrow_cast('{moment.isoformat()}', 'Timestamp(Microsecond, None)')"
    if pt.is_date(kind):
        return f"date '{value.as_py().isoformat()}'"
    if pt.is_integer(kind) or pt.is_boolean(kind):
        return str(value.as_py()).lower()
    if pt.is_string(kind):
        text: str = value.as_py().replace("'", "''")
        return f"'{text}'"
    return f"arrow_cast('{value.as_py()}', '{_datafusion_name(kind)}')"


def _datafusion_name(kind: pa.DataType) -> str:
    if pt.is_decimal(kind):
        return f"Decimal128({kind.precision}, {kind.scale})"
    return str(kind).capitalize()


def as_polars(tests: Tests, polars: Any) -> Any:
    """Return the filter of a Polars frame.

    Args:
        tests: The tests.
        polars: The module, which is an optional extra.
    """

    def one(test: Test) -> Any:
        column = polars.col(test.column)
        if test.values is not None:
            return column.is_in(test.values.to_pylist())
        return polars.any_horizontal(
            [(column >= low.as_py()) & (column < high.as_py()) for low, high in test.ranges]
        )

    return polars.any_horizontal(
        [polars.all_horizontal(list(map(one, all_of))) for all_of in tests]
    )


def decided_by_folder(tests: Tests, partition_columns: Sequence[str]) -> bool:
    """Return whether the values of a file's partition tell if its rows are in the slice."""
    return all(test.column in partition_columns for all_of in tests for test in all_of)


Filter = Callable[[pa.Table], pa.Table]


def inside(tests: Tests) -> Filter:
    """Return the function that keeps the rows of the slice."""
    expression = as_expression(tests)
    return lambda rows: rows.filter(expression)


def outside(tests: Tests) -> Filter:
    """Return the function that keeps the other rows, those with a null among them."""
    expression = as_expression(tests)
    # A comparison with null is null, and a filter drops the row: it is in no partition.
    return lambda rows: rows.filter(~pc.coalesce(expression, pa.scalar(False)))
