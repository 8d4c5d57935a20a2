"""SQL conditions on single rows: checked when defined, evaluated on the rows of a chunk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from datazone_dagster.database.database import Databases, opened
from datazone_dagster.errors import ExpressionError, TransformError
from datazone_dagster.frame.query_session import Session
from datazone_dagster.frame.row_wise import is_row_wise
from datazone_dagster.frame.sql_errors import absent_column, absent_field, failure
from datazone_dagster.frame.struct_fields import has_path, without_absent_fields
from datazone_dagster.frame.syntax import nodes, parse_expressions, quoted
from datazone_dagster.model.column_names import RESERVED_PREFIX
from datazone_dagster.text import shown

RowNumbers = np.ndarray[Any, np.dtype[np.int64]]

_TABLE = "changes"
_ROW = "_dz_row"
_VIOLATED = "_dz_violated_"
_NULL = "NULL"


def check_predicates(where: str, predicates: Mapping[str, str]) -> None:
    """Check conditions by name as far as that is possible without rows.

    Args:
        where: Start of errors, before the name.
        predicates: The conditions by name.

    Raises:
        ExpressionError: The text is not one expression that depends on a single row.
    """
    if not predicates:
        return
    with opened() as connection:

        def ask(query: str, value: str) -> str:
            return str(connection.execute(query, [value]).fetchall()[0][0])

        for name, text in predicates.items():
            call = _call(where, name, text)
            items = parse_expressions(ask, text, call=call)
            if len(items) != 1 or items[0]["alias"]:
                raise ExpressionError(
                    f"{call}: a single condition without a name is expected.",
                    hint="Join conditions with AND.",
                )
            if not is_row_wise(items) or any(map(_makes_several, nodes(items))):
                raise ExpressionError(
                    f"{call}: the condition depends on more than the columns of one row.",
                    hint="Leave out aggregates, windows, subqueries, *, unnest, random values and "
                    "the current time; the time of a row's change is _dz_event_time.",
                )


def _call(where: str, name: str, text: str) -> str:
    return f"{where}{name!r} ({shown(text)})"


def _makes_several(node: Mapping[str, object]) -> bool:
    name = str(node.get("function_name", "")).casefold()
    return node.get("type") == "STAR" or name == "unnest"


class Predicates:
    """Conditions on the rows of one table, evaluated in a database that is used again.

    Args:
        where: Start of errors, before the name of a condition.
        predicates: The conditions by name; each is checked.
        memory_limit_bytes: DuckDB's memory limit.
        databases: Pool of databases.
    """

    def __init__(
        self,
        where: str,
        predicates: Mapping[str, str],
        memory_limit_bytes: int,
        databases: Databases,
    ) -> None:
        check_predicates(where, predicates)
        self._where = where
        self._predicates = dict(predicates)
        self._memory_limit_bytes = memory_limit_bytes
        self._databases = databases
        self._bound: tuple[pa.Schema, pa.Schema] | None = None
        self._conditions: dict[str, _Bound] = {}

    @property
    def absent(self) -> Mapping[str, tuple[str, ...]]:
        """Columns and struct fields that a condition names and there are not, by its name."""
        found = {name: one.columns + one.fields for name, one in self._conditions.items()}
        return {name: absent for name, absent in found.items() if absent}

    def violations(self, rows: pa.Table, known: pa.Schema) -> dict[str, RowNumbers]:
        """Return the numbers of the rows that violate a condition, by name, where there are some.

        A row does not violate a condition that is null for it. It violates one that can't take its
        values. A column or a struct field that the rows do not have is null, and `absent` names it.
        A condition that can't be understood without the type of such a column is null, and so is
        one that takes such a field in another way than by dots.

        Args:
            rows: The rows.
            known: Schema of their table; `absent` does not name its struct fields.

        Raises:
            ExpressionError: A condition names a hidden column that there is not, or is no
                condition.
            OutOfMemoryError: It needs more memory than the limit.
        """
        if not self._predicates or not len(rows):
            return {}
        numbered = rows.append_column(_ROW, pa.array(np.arange(len(rows))))
        session = Session(
            {_TABLE: numbered},
            memory_limit_bytes=self._memory_limit_bytes,
            threads=1,
            databases=self._databases,
        )
        try:
            if self._bound != (rows.schema, known):
                self._bind(session, rows.schema, known)
                self._bound = (rows.schema, known)
            found = self._violations(session, rows.column_names)
        finally:
            session.close()
        numbers = {
            name: found[_ROW].filter(found[f"{_VIOLATED}{number}"]).to_numpy()
            for number, name in enumerate(self._predicates)
        }
        return {name: rows_found for name, rows_found in numbers.items() if len(rows_found)}

    def _violations(self, session: Session, available: Sequence[str]) -> pa.Table:
        # The line break ends a trailing comment in the user's text.
        columns = ", ".join(
            f"NOT coalesce(try(coalesce(({one.text}\n), true)), false) AS {_VIOLATED}{number}"
            for number, one in enumerate(self._conditions.values())
        )
        any_violated = " OR ".join(
            f"{_VIOLATED}{number}" for number in range(len(self._predicates))
        )
        source = _with_nulls(name for one in self._conditions.values() for name in one.columns)
        query = f"FROM (SELECT {_ROW}, {columns} FROM {source}) WHERE {any_violated}"  # noqa: S608  # checked
        try:
            return session.table(query)
        except duckdb.Error as error:
            call = f"{self._where}{', '.join(map(repr, self._predicates))}"
            raise _failure(error, call, available, running=True) from error

    def _bind(self, session: Session, schema: pa.Schema, known: pa.Schema) -> None:
        self._conditions = {
            name: self._bound_condition(session, schema, known, name, text)
            for name, text in self._predicates.items()
        }

    def _bound_condition(
        self, session: Session, schema: pa.Schema, known: pa.Schema, name: str, text: str
    ) -> _Bound:
        """Return the condition to evaluate, and what it names and there is not."""
        call = _call(self._where, name, text)
        bound = _Bound(text)
        while True:
            try:
                query = f"SELECT ({bound.text}\n) FROM {_with_nulls(bound.columns)}"  # noqa: S608  # checked
                ((_, kind),) = session.columns(query)
            except duckdb.Error as error:
                column, field = absent_column(error), absent_field(error)
                is_hidden = column is not None and column.startswith(RESERVED_PREFIX)
                if column is not None and not is_hidden and column not in bound.columns:
                    bound = replace(bound, columns=(*bound.columns, column))
                elif field is not None and not bound.has_null_fields:
                    bound = _without_fields(session, bound, schema, known, field, call)
                elif bound.is_partial and not is_hidden:
                    return replace(bound, text=_NULL)
                else:
                    raise _failure(error, call, schema.names, running=False) from error
                continue
            if kind == "BOOLEAN":
                return bound
            if bound.is_partial:  # it may be a condition once the type of the column is known
                return replace(bound, text=_NULL)
            raise ExpressionError(
                f"{call}: the expression is of type {kind}, not a condition.",
                hint="Compare it with something, as in total >= 0.",
            )


@dataclass(frozen=True, slots=True)
class _Bound:
    """A condition as it is evaluated.

    Args:
        text: The condition, with null in place of struct fields that there are not.
        columns: Columns that it names and there are not.
        fields: Struct fields that it names and neither the rows nor their table have.
        has_null_fields: Whether the condition was searched for struct fields that there are not.
    """

    text: str
    columns: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    has_null_fields: bool = False

    @property
    def is_partial(self) -> bool:
        """Whether something that the condition names counts as null."""
        return bool(self.columns) or self.has_null_fields


def _without_fields(
    session: Session, bound: _Bound, schema: pa.Schema, known: pa.Schema, field: str, call: str
) -> _Bound:
    """Return a condition without the struct fields that there are not, such as `field`."""
    text, paths = without_absent_fields(session.ask, bound.text, schema, table=_TABLE, call=call)
    if not paths:
        return replace(bound, fields=(field,), has_null_fields=True)
    fields = tuple(".".join(path) for path in paths if not has_path(known, path))
    return replace(bound, text=text, fields=fields, has_null_fields=True)


def _with_nulls(absent: Iterable[str]) -> str:
    """Return the rows in SQL, with columns that they lack as nulls of every type."""
    names = {name.casefold(): name for name in absent}.values()
    if not names:
        return _TABLE
    nulls = ", ".join(f"NULL AS {quoted(name)}" for name in names)
    return f"(SELECT *, {nulls} FROM {_TABLE}) AS {_TABLE}"  # noqa: S608  # quoted


def _failure(
    error: duckdb.Error, call: str, available: Sequence[str], *, running: bool
) -> TransformError:
    return failure(error, call=call, available=available, tables=(), shown={}, running=running)
