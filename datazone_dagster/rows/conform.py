"""Check of a result's rows against the table and the contract of their dataset. Pure.

Every column is checked on its own: whether it exists, whether it may be added, whether its type
holds the values. Refused values do not reach the table; the change log has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from datazone_dagster.errors import SchemaChangeError
from datazone_dagster.model.column_names import HIDDEN, KEY, KEY_NUMBER, RESERVED_PREFIX, SIBLING_OF
from datazone_dagster.model.contract import Column, ColumnType, Contract
from datazone_dagster.rows.align import aligned, number_texts
from datazone_dagster.rows.partition_values import refused_values
from datazone_dagster.rows.sql_types import sql_type
from datazone_dagster.rows.widening import fits, widest
from datazone_dagster.text import shown

_SCALARS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "timestamp_ntz": pa.timestamp("us"),
}

_NOTHING_LOST = (
    "Nothing of the chunk was applied; the change log keeps it and the next run retries."
)


@dataclass(frozen=True)
class Conformed:
    """Rows as the table takes them, and the changes that the table needs before.

    Args:
        rows: All rows, in `schema`; the caller removes the refused ones.
        schema: Schema of the table after the changes.
        added: Fields that the table lacks, in the order of the result.
        widened: Names of columns whose type in `schema` is wider than in the table.
        unexpected: Columns of the result that must not be added, and their types.
        refused: Reason per row for refusing it; null where there is none.
    """

    rows: pa.Table
    schema: pa.Schema
    added: tuple[pa.Field, ...]
    widened: tuple[str, ...]
    unexpected: tuple[tuple[str, str], ...]
    refused: pa.ChunkedArray


def arrow_type(declared: ColumnType) -> pa.DataType:
    """Return the Arrow type of a declared type."""
    match declared:
        case str():
            return _SCALARS[declared]
        case ("decimal", precision, scale):
            return pa.decimal128(precision, scale)
        case ("list", value):
            return pa.list_(arrow_type(value))
        case ("map", key, item):
            return pa.map_(arrow_type(key), arrow_type(item))
        case _:
            return pa.struct([pa.field(name, arrow_type(kind)) for name, kind in declared[1]])


def first_schema(rows: pa.Schema, contract: Contract) -> pa.Schema:
    """Return the schema of a new table: declared columns, the result's, then the hidden ones.

    Every column is nullable, as Delta requires of columns that are added later; the contract
    decides which values may be null.
    """
    fields = {column.name: _field(column) for column in contract.columns}
    for one in rows:
        if one.name not in HIDDEN and _may_be_added(one.name, contract, is_new_table=True):
            fields.setdefault(one.name, one.with_nullable(True))
    hidden = [rows.field(name).with_nullable(True) for name in HIDDEN]
    return pa.schema([*fields.values(), *hidden])


def conform(
    rows: pa.Table,
    table: pa.Schema,
    contract: Contract,
    *,
    exempt: Callable[[], pa.Array | pa.ChunkedArray],
    dataset_id: str,
    partition_by: Sequence[str] = (),
) -> Conformed:
    """Compare a result with the table and the contract.

    Args:
        rows: Rows that the function returned, with the hidden columns.
        table: Schema of the table.
        contract: Rules for the table's columns.
        exempt: Returns whether the contract ignores the row's values, per row: true for deletes.
            Called only if a row's values are not as they have to be.
        dataset_id: Dataset to name in errors.
        partition_by: Columns that the table is partitioned by.

    Raises:
        SchemaChangeError: A column's type changed, and the table's type can't be widened nor
            the rows be quarantined; a column's name differs from another one only in case; or
            a column has a value that it must not have.
    """
    conforming = _Conforming(rows, table, contract, exempt, dataset_id)
    for one in rows.schema:
        if one.name not in HIDDEN:
            conforming.take(one)
    for column in contract.columns:
        conforming.declare(column)
    for name in partition_by:
        conforming.name_partitions(name)
    return conforming.result()


@dataclass
class _Conforming:
    """The columns of one result, checked one after the other."""

    rows: pa.Table
    table: pa.Schema
    contract: Contract
    exempt: Callable[[], pa.Array | pa.ChunkedArray]
    dataset_id: str
    added: list[pa.Field] = field(default_factory=list)
    widened: dict[str, pa.DataType] = field(default_factory=dict)
    unexpected: list[tuple[str, str]] = field(default_factory=list)
    columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    refused: pa.ChunkedArray | None = None

    def take(self, new: pa.Field) -> None:
        """Check one column of the result."""
        same = {name.casefold(): name for name in self.table.names}.get(new.name.casefold())
        if same is not None and same != new.name:
            raise SchemaChangeError(
                f"Dataset {self.dataset_id!r}: the result has a column {new.name!r}, the table "
                f"has {same!r}; Delta holds names that differ only in case as one.",
                safe=_NOTHING_LOST,
                hint=f"Name it {same!r}, or choose another name.",
            )
        if same is None and not _may_be_added(new.name, self.contract):
            self.unexpected.append((new.name, str(new.type)))
            has_value = pc.is_valid(self.rows[new.name])
            if self.contract.refuses(new.name):
                self._refuse(has_value, f"there is no column {new.name!r} in the table")
            else:
                self._check_sibling(new, has_value)
            return
        declared = self.contract.declared(new.name)
        wanted = self._wanted(new, declared, None if same is None else self.table.field(same).type)
        self.columns[new.name] = self._converted(new, wanted)
        if same is None:
            self.added.append(new.with_type(wanted).with_nullable(True))
        elif not wanted.equals(self.table.field(same).type):
            self.widened[new.name] = wanted

    def declare(self, column: Column) -> None:
        """Check one declared column: add it if missing, refuse nulls if it is not nullable."""
        if column.name not in self.columns and column.name not in self.table.names:
            self.added.append(_field(column))
        if column.nullable:
            return
        values = self.columns.get(column.name)
        missing = (
            pc.is_null(values)
            if values is not None
            else pa.chunked_array([pa.repeat(pa.scalar(True), len(self.rows))])
        )
        if values is not None and self.refused is not None:
            # A value that could not be converted is null by now, and its row is already refused.
            missing = pc.and_(missing, pc.is_null(self.refused))
        missing = self._not_exempt(missing)
        self._refuse_or_fail(
            missing,
            column.name,
            f"column {column.name!r} must not be null",
            "Fill it in the function, declare it as nullable",
        )

    def name_partitions(self, column: str) -> None:
        """Check a partition column: readers must be able to parse a partition's name.

        A text that has no exact name is always refused. A time outside the readers' range makes
        Polars and pyarrow fail on the entire table (measured).
        """
        values = self.columns.get(column)
        reasons = None if values is None else refused_values(values, column)
        if reasons is not None:
            self.refused = reasons if self.refused is None else pc.coalesce(self.refused, reasons)
        if values is None or not _names_times(values.type):
            return
        zone = values.type.tz if pt.is_timestamp(values.type) else None
        first, last = (
            pa.scalar(one.replace(tzinfo=timezone.utc) if zone else one, values.type)
            for one in (datetime.min, datetime.max)
        )
        beyond = pc.or_(pc.less(values, first), pc.greater(values, last))
        self._refuse_or_fail(
            pc.fill_null(beyond, False),
            column,
            f"partition column {column!r} must be in the years 1 to 9999",
            "Fix it in the function (milliseconds read as seconds give such times)",
        )

    def result(self) -> Conformed:
        """Return the outcome for all columns together."""
        schema = pa.schema(
            [
                one.with_type(self.widened[one.name]) if one.name in self.widened else one
                for one in [*self.table, *self.added]
            ]
        )
        hidden = {name: self.rows[name] for name in HIDDEN if name in self.rows.column_names}
        rows = aligned(pa.table({**self.columns, **hidden}), schema)
        refused = self.refused
        if refused is None:
            refused = pa.chunked_array([pa.nulls(len(rows), pa.string())])
        return Conformed(
            rows, schema, tuple(self.added), tuple(self.widened), tuple(self.unexpected), refused
        )

    def _wanted(
        self, new: pa.Field, declared: Column | None, existing: pa.DataType | None
    ) -> pa.DataType:
        """Return the type that the table's column must have for these values."""
        if declared is not None:
            wanted = arrow_type(declared.type)
            if existing is None or fits(existing, wanted):
                return wanted
            raise self._changed(new, existing, "declared as", wanted, pa.nulls(0, pa.bool_()))
        if existing is None:
            return new.type
        if fits(new.type, existing) or self.contract.policy_of(new.name) != "evolve":
            return existing
        both = _of_key_numbers(new, existing) or widest(existing, new.type)
        if both is None:
            every = pc.is_valid(self.rows[new.name])
            raise self._changed(new, existing, "now", new.type, every)
        return both

    def _converted(self, new: pa.Field, wanted: pa.DataType) -> pa.ChunkedArray:
        """Return the values in the wanted type; a value that it can't hold is refused or raises."""
        values = self.rows[new.name]
        if fits(new.type, wanted):
            return values
        if pt.is_string(wanted) and _of_key_numbers(new, wanted) is not None:
            return number_texts(values)
        converted = exact_values(values, wanted)
        lost = pc.and_(pc.is_valid(values), pc.is_null(converted))
        lost = self._not_exempt(lost)
        if pc.any(lost).as_py():
            if not self.contract.refuses(new.name):
                raise self._changed(new, wanted, "now", new.type, lost)
            self._refuse(lost, f"column {new.name!r} holds a value that is no {sql_type(wanted)}")
        return converted

    def _check_sibling(self, sibling: pa.Field, has_value: pa.Array) -> None:
        """Check a sibling column that stays out: its values must not become nulls of their column.

        `items()` puts values of another type there. Without it, they would be lost in the table.
        """
        column = (sibling.metadata or {}).get(SIBLING_OF.encode(), b"").decode()
        if column not in self.table.names:
            return
        lost = self._not_exempt(has_value)
        if not pc.any(lost).as_py():
            return
        kind = sql_type(self.table.field(column).type)
        if self.contract.refuses(column):
            self._refuse(lost, f"column {column!r} holds a value that is no {kind}")
            return
        value = self.rows[sibling.name].filter(lost)[0]
        key = self.rows[KEY].filter(lost)[0].as_py()
        raise SchemaChangeError(
            f"Dataset {self.dataset_id!r}: column {column!r} is {kind} in the table, and "
            f"{pc.sum(lost).as_py()} rows have a value that it can't hold, for example "
            f"{shown(value, 80)!r} (_dz_key {shown(key)}). Its place is {sibling.name!r}, a column "
            "that schema_policy keeps out of the table.",
            safe=_NOTHING_LOST,
            hint=f"Allow that column: schema_policy={{{sibling.name!r}: 'evolve', ...}}; or "
            f"quarantine such records: schema_policy={{{column!r}: 'quarantine', ...}}.",
        )

    def _not_exempt(self, wrong: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
        """Return the rows among these whose values count."""
        return pc.and_(wrong, pc.invert(self._exempt)) if pc.any(wrong).as_py() else wrong

    @cached_property
    def _exempt(self) -> pa.Array | pa.ChunkedArray:
        return self.exempt()

    def _refuse_or_fail(self, wrong: pa.Array, column: str, reason: str, hint: str) -> None:
        if not pc.any(wrong).as_py():
            return
        if not self.contract.refuses(column):
            key = self.rows[KEY].filter(wrong)[0].as_py()
            raise SchemaChangeError(
                f"Dataset {self.dataset_id!r}: {reason}, and it is in "
                f"{pc.sum(wrong).as_py()} rows (the first has the _dz_key {shown(key)}).",
                safe=_NOTHING_LOST,
                hint=f"{hint}, or quarantine such records: "
                f"Dataset(schema_policy={{{column!r}: 'quarantine'}}).",
            )
        self._refuse(wrong, reason)

    def _refuse(self, wrong: pa.Array, reason: str) -> None:
        reasons = pc.if_else(wrong, pa.scalar(reason), pa.scalar(None, pa.string()))
        self.refused = reasons if self.refused is None else pc.coalesce(self.refused, reasons)

    def _changed(
        self, new: pa.Field, existing: pa.DataType, how: str, other: pa.DataType, where: pa.Array
    ) -> SchemaChangeError:
        values = self.rows[new.name].filter(where) if len(where) else self.rows[new.name][:0]
        example = f", for example {shown(values[0], 80)!r}" if len(values) else ""
        kind, again = sql_type(existing), f"`datazone-dagster rebuild {self.dataset_id}`"
        return SchemaChangeError(
            f"Dataset {self.dataset_id!r}: column {new.name!r} is {kind} in the table and is {how} "
            f"{sql_type(other)}{example}. Without a cast, {kind} can't hold every such value.",
            safe=_NOTHING_LOST,
            hint=f"Three ways out: cast it to {kind} in the function; give it another name; or run "
            f"{again}, which makes the table with the new type.",
        )


def exact_values(values: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray:
    """Return numbers in another numeric type, exactly; null where that is not possible.

    Other types are not converted: only the function knows whether a text is a number.
    """
    if not _is_exactly_castable(values.type, wanted):
        return pa.chunked_array([pa.nulls(len(values), wanted)])
    if pt.is_integer(values.type) and pt.is_decimal(wanted):
        # Arrow requires the digits of every integer of the type, whatever the values are.
        values = values.cast(pa.decimal128(19, 0))
    try:
        return values.cast(wanted)
    except pa.ArrowInvalid:
        return pa.chunked_array([pa.array([_exact(one, wanted) for one in values], wanted)])


def _exact(value: pa.Scalar, wanted: pa.DataType) -> object:
    try:
        return value.cast(wanted).as_py()
    except pa.ArrowInvalid:
        return None


def _is_exactly_castable(source: pa.DataType, wanted: pa.DataType) -> bool:
    """Return whether Arrow's safe cast refuses every value that would change (pyarrow 26)."""
    if pt.is_integer(wanted):
        exact = pt.is_integer(source) or pt.is_floating(source) or pt.is_decimal(source)
    elif pt.is_decimal(wanted):
        exact = pt.is_integer(source) or pt.is_decimal(source)
    else:
        exact = pt.is_float64(wanted) and pt.is_integer(source)
    return bool(exact)


def _may_be_added(name: str, contract: Contract, *, is_new_table: bool = False) -> bool:
    if contract.declared(name) is not None or name.startswith(RESERVED_PREFIX):
        return True
    # Without a declaration the first result defines which columns are frozen.
    undeclared = is_new_table and not contract.columns
    return undeclared or contract.policy_of(name) == "evolve"


def _names_times(kind: pa.DataType) -> bool:
    """Return whether a type has times that Python lacks; those in nanoseconds end in 2262."""
    return bool(pt.is_date(kind) or (pt.is_timestamp(kind) and kind.unit != "ns"))


def _of_key_numbers(new: pa.Field, existing: pa.DataType) -> pa.DataType | None:
    """Return text for numeric keys of which some are text; None for any other column."""
    kinds = (existing, new.type)
    is_key = KEY_NUMBER.encode() in (new.metadata or {})
    as_text = is_key and any(pt.is_string(kind) for kind in kinds)
    if as_text and any(pt.is_integer(kind) or pt.is_decimal(kind) for kind in kinds):
        return pa.string()
    return None


def _field(column: Column) -> pa.Field:
    return pa.field(column.name, arrow_type(column.type))
