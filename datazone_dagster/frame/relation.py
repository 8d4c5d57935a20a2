"""Lazy, immutable relations over one chunk: the common base of frames and lookups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import duckdb
import pyarrow as pa

from datazone_dagster.errors import DatazoneError, ExpressionError, TransformError
from datazone_dagster.frame.expressions import (
    PREVIOUS,
    Expression,
    Scope,
    expressions,
    predicate,
    queries,
    shown_call,
)
from datazone_dagster.frame.record_view import (
    FIELDS,
    images_needed,
    plain_value,
    record_depth,
)
from datazone_dagster.frame.relation_plan import Plan
from datazone_dagster.frame.sql_errors import failure
from datazone_dagster.frame.syntax import quoted
from datazone_dagster.model.column_names import HIDDEN, ITEM_RESTS, RESERVED_PREFIX

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]  # pandas-stubs is not a dependency
    import polars

_R = TypeVar("_R", bound="Relation")
_PREVIEW_COLUMNS = 12
_RECORDS = ("record", "record[]")


class Relation:
    """Rows that are computed on demand. Every call returns a new relation.

    A call checks its SQL at once and reads nothing; `arrow()`, `pl()`, `df()` and the Arrow
    stream run it. Hidden columns (`_dz_key`, `_dz_version`, `_dz_event_time`) travel with the
    rows: `columns` does not list them, but all results contain them.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def columns(self) -> list[str]:
        """Names of the columns, without the hidden columns."""
        return [name for name, _ in self._plan.bound if name not in HIDDEN]

    def select(self: _R, *columns: str) -> _R:
        """Select SQL expressions as the columns.

        An expression is named by its alias. Without an alias, a path is named by its last
        attribute (`dynamodb.NewImage.total.N` is `total`), and any other expression by its own
        text. `*` is every column. `unnest(...)` makes several rows from one.

        Args:
            columns: SQL expressions; one argument may hold several, separated by commas.

        Raises:
            ExpressionError: An expression does not parse, names a column that does not exist, or
                has the same name as another one.
        """
        if not columns:
            raise ExpressionError("select(): name at least one expression.")
        found = expressions(self._scope(), "select", columns)
        return self._with_stage(found, self._selecting([item.sql for item in found]))

    def with_columns(self: _R, *columns: str) -> _R:
        """Keep all columns and add these; one that has an existing name replaces that column.

        Args:
            columns: SQL expressions as for `select`, without `*`.

        Raises:
            ExpressionError: As for `select`.
        """
        if not columns:
            raise ExpressionError("with_columns(): name at least one expression.")
        found = expressions(self._scope(), "with_columns", columns)
        for item in found:
            if not item.name:
                raise ExpressionError(
                    f"{item.call}: existing columns stay.", hint="Name only the new columns."
                )
        replaced = {item.name.casefold(): item.sql for item in found}
        if len(replaced) < len(found):
            raise _name_error(shown_call("with_columns", *columns), [item.name for item in found])
        listed = [
            replaced.pop(name.casefold(), f"{self._plan.source}.{quoted(name)}")
            for name in self.columns
        ]
        return self._with_stage(found, self._selecting([*listed, *replaced.values()]))

    def filter(self: _R, condition: str) -> _R:
        """Keep the rows for which an SQL condition is true.

        Args:
            condition: One SQL expression; null counts as not true.

        Raises:
            ExpressionError: The condition does not parse or bind.
        """
        found = predicate(self._scope(), condition)
        stage = f"SELECT * FROM {PREVIOUS} AS {self._plan.source} WHERE {found.sql}"  # noqa: S608  # the user's condition
        return self._with_stage([found], stage)

    def sql(self: _R, query: str) -> _R:
        """Run a full SELECT over this relation as table `changes` and over lookups by name.

        The hidden columns travel along as long as each row of the result comes from one row of
        `changes`. An aggregate loses them. In merge and history mode it must be grouped by the
        complete key, and select them by name, for example `arg_max(_dz_key, _dz_version)`.

        Args:
            query: One SELECT statement; joins, WITH and UNION ALL are allowed.

        Raises:
            ExpressionError: The query does not parse or bind.
        """
        candidates = queries(self._scope(), query)
        for candidate in candidates[:-1]:
            try:
                plan = self._plan.then(candidate.call, candidate.sql, [candidate])
            except duckdb.Error:
                continue  # the plain query shows whether the user's SQL is at fault
            _check_names(candidate.call, plan.bound)
            return type(self)(plan)
        return self._with_stage(candidates[-1:], candidates[-1].sql)

    def arrow(self) -> pa.Table:
        """Return the rows as an Arrow table, hidden columns included.

        Raises:
            TransformError: A value does not fit its cast, or the memory limit is too low.
        """
        self._plan.names.rows_read = True
        if self._plan.ready is not None:
            return _with_metadata(self._plan.ready, self._plan.names.metadata)
        self._plan.session.read(self.images_needed)
        return self._run(self._plan.session.table)

    def _run(self, run: Callable[[str], pa.Table]) -> pa.Table:
        """Run the query for the user's result: hidden columns and full records included."""
        plan, records = self._plan, self._records
        listed = [
            f"{plain_value(quoted(name), records.get(name))} AS {quoted(name)}"
            for name in (*self.columns, *self._hidden)
        ]
        more = frozenset(FIELDS) if records else frozenset[str]()
        query = f"SELECT {', '.join(listed)} FROM ({plan.query(more)})"  # noqa: S608  # quoted names
        try:
            return _with_metadata(run(query), plan.names.metadata)
        except duckdb.Error as error:
            call = "reading " + ".".join((plan.source, *plan.calls))
            raise self._failure(error, call, running=True) from error

    def pl(self) -> polars.DataFrame:
        """Return the rows as a Polars data frame, hidden columns included.

        Raises:
            TransformError: Polars is not installed, or as for `arrow()`.
        """
        try:
            import polars
        except ImportError as error:
            raise _not_installed("pl()", "polars") from error
        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame)  # a table never gives a series
        return frame

    def df(self) -> pandas.DataFrame:
        """Return the rows as a pandas data frame with Arrow-backed columns: integers stay integers.

        Raises:
            TransformError: pandas is not installed, or as for `arrow()`.
        """
        try:
            import pandas
        except ImportError as error:
            raise _not_installed("df()", "pandas") from error
        frame: pandas.DataFrame = self.arrow().to_pandas(types_mapper=pandas.ArrowDtype)
        return frame

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        types, records = dict(self._plan.bound), self._records
        shown = [
            f"{name}: {types[name].lower() if name not in records else _RECORDS[records[name]]}"
            for name in self.columns[:_PREVIEW_COLUMNS]
        ]
        more = len(self.columns) - len(shown)
        tail = f", and {more} more" if more > 0 else ""
        return (
            f"<{type(self).__name__} of {', '.join(shown)}{tail}; arrow(), pl() or df() reads it>"
        )

    @property
    def images_needed(self) -> frozenset[str]:
        """Key and image columns of the change log that the rows are computed from."""
        plan = self._plan
        more = frozenset(FIELDS) if self._records else frozenset[str]()
        return images_needed(plan.needs | more, plan.names)

    @property
    def _hidden(self) -> list[str]:
        names = {name for name, _ in self._plan.bound}
        return [name for name in HIDDEN if name in names]

    @property
    def _records(self) -> dict[str, int]:
        """Columns that hold the record, as `record_depth`."""
        depths = {name: record_depth(duckdb_type) for name, duckdb_type in self._plan.bound}
        return {name: depth for name, depth in depths.items() if depth is not None}

    def _scope(self) -> Scope:
        plan = self._plan
        ask, columns = plan.session.ask, plan.columns
        records = {name.casefold(): depth for name, depth in self._records.items()}
        names = {name.casefold() for name, _ in plan.bound}
        rows = frozenset({plan.source} - names if records else ())
        return Scope(
            ask,
            plan.source,
            records,
            self._hidden,
            plan.names,
            columns,
            rows,
            volatile=plan.volatile,
            names_of_columns=frozenset(names),
        )

    def _selecting(self, listed: Sequence[str]) -> str:
        hidden = (f"{self._plan.source}.{name}" for name in self._hidden)
        columns = ", ".join((*listed, *hidden))
        return f"SELECT {columns} FROM {PREVIOUS} AS {self._plan.source}"  # noqa: S608  # parsed before

    def _with_stage(self: _R, found: Sequence[Expression], stage: str) -> _R:
        try:
            plan = self._plan.then(_joint_call(found), stage, found)
        except duckdb.Error as error:
            raise self._blamed(found, error) from error
        _check_names(plan.calls[-1], plan.bound)
        return type(self)(plan)

    def _blamed(self, found: Sequence[Expression], error: duckdb.Error) -> TransformError:
        """Return the error of the expression that fails alone, else of the joint call."""
        if len(found) == 1:
            return self._failure(error, found[0].call)
        for item in found:
            try:
                stage = self._selecting([item.sql])
                self._plan.then(item.call, stage, [item])
            except duckdb.Error as own:
                return self._failure(own, item.call)
        return self._failure(error, _joint_call(found))

    def _failure(self, error: duckdb.Error, call: str, *, running: bool = False) -> TransformError:
        plan = self._plan
        lookups = [
            name for name in plan.session.table_names if not name.startswith(RESERVED_PREFIX)
        ]
        return failure(
            error,
            call=call,
            available=self.columns,
            tables=list(dict.fromkeys([plan.source, *lookups])),
            shown=plan.names.shown(),
            running=running,
        )


def _with_metadata(rows: pa.Table, metadata: Mapping[str, Mapping[str, str]]) -> pa.Table:
    """Add the metadata of the columns of `items()` to their fields."""
    if not any(metadata.values()):
        return rows
    fields = [
        field.with_metadata(dict(metadata[field.name])) if metadata.get(field.name) else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(fields))


def _joint_call(found: Sequence[Expression]) -> str:
    """Format the one call that has these expressions as its arguments."""
    return shown_call(found[0].method, *dict.fromkeys(item.text for item in found))


def _check_names(call: str, bound: Sequence[tuple[str, str]]) -> None:
    names = [name for name, _ in bound]
    if len({name.casefold() for name in names}) < len(names):
        raise _name_error(call, names)
    for name in names:
        if name.casefold().startswith(RESERVED_PREFIX) and name not in (*HIDDEN, *ITEM_RESTS):
            raise ExpressionError(
                f"{call}: the column name {name!r} is reserved.",
                hint=f"Names that start with {RESERVED_PREFIX!r} are reserved; use another alias.",
            )


def _name_error(call: str, names: Sequence[str]) -> ExpressionError:
    seen: dict[str, str] = {}
    for name in names:
        if name.casefold() in seen:
            break
        seen[name.casefold()] = name
    twin = seen[name.casefold()]
    if name in HIDDEN:
        return ExpressionError(
            f"{call}: the column {name} is selected twice.",
            hint="It travels with every row automatically: leave it out. A pattern may match it, "
            "too: columns(lambda name: name like 'event%') does not.",
        )
    pair = repr(name) if twin == name else f"{twin!r} and {name!r}"
    return ExpressionError(
        f"{call}: two columns are named {pair}; column names must differ in more than case.",
        hint='Give one another alias: "expression as other_name".',
    )


def _not_installed(call: str, extra: str) -> DatazoneError:
    return TransformError(
        f"{call} needs {extra}, which is not installed.",
        hint=f"Install datazone-dagster[{extra}].",
    )
