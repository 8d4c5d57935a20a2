"""The batches of a result, checked and in the types of the table, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from datazone_dagster.errors import DefinitionError, ResultError
from datazone_dagster.frame.arrow_types import UnsupportedTypeError, as_delta, delta_type
from datazone_dagster.model.asset_write import AssetWrite
from datazone_dagster.rows.align import aligned
from datazone_dagster.rows.partition_values import refused_values
from datazone_dagster.tables.slice_filter import Tests, outside
from datazone_dagster.text import shown

_NOTHING_WRITTEN = "Nothing was written; the table is as it was."


@dataclass(frozen=True)
class DeltaForm:
    """Schema of a result in the types of Delta Lake, and what this form cannot show.

    Args:
        schema: The schema.
        untyped: Columns of nulls without a type: left out.
        as_utc: Columns of times without a zone, taken as UTC.
    """

    schema: pa.Schema
    untyped: tuple[str, ...]
    as_utc: tuple[str, ...]


def delta_form(result: pa.Schema, *, where: str) -> DeltaForm:
    """Return the schema that the rows of a result are written in.

    Raises:
        ResultError: Delta Lake lacks the type of a column.
    """
    fields, untyped, as_utc = [], [], []
    for one in result:
        if pa.types.is_null(one.type):
            untyped.append(one.name)
            continue
        try:
            fields.append(pa.field(one.name, delta_type(one.type)))
        except UnsupportedTypeError as error:
            raise ResultError(
                f"{where}: column {one.name!r} can't be written: {error}.",
                safe=_NOTHING_WRITTEN,
            ) from error
        if pa.types.is_timestamp(one.type) and one.type.tz is None:
            as_utc.append(one.name)
    return DeltaForm(pa.schema(fields), tuple(untyped), tuple(as_utc))


@dataclass(frozen=True)
class RowChecks:
    """Checks of each batch before it is stored.

    Args:
        schema: Schema of the rows in the table; columns that the result lacks are null.
        write: How the result is written.
        where: Name of the asset for errors.
        tests: Tests that every row has to pass; None: the asset has no partitions.
        partition_by: Columns by which the files are partitioned.
        partitions: Partition keys of the run, for errors.
    """

    schema: pa.Schema
    write: AssetWrite
    where: str
    tests: Tests | None
    partition_by: tuple[str, ...]
    partitions: tuple[str, ...] = ()

    def rows(
        self,
        batches: Iterator[pa.Table],
        connection: duckdb.DuckDBPyConnection | None,
        on_deleted: Callable[[pa.Table], None],
    ) -> Iterator[pa.Table]:
        """Yield the rows to store, in `schema`.

        Args:
            batches: Rows as they were returned.
            connection: Connection that evaluates `delete_where`; None: nothing is deleted.
            on_deleted: Function that is given the rows that delete their keys.

        Raises:
            DefinitionError: `delete_where` can't be evaluated.
            ResultError: A key is null, a row is in none of the partitions, or a value does not
                fit.
        """
        check_partition = None if self.tests is None else outside(self.tests)
        for batch in batches:
            rows = self._in_table_form(batch)
            self._refuse_null_keys(rows)
            if check_partition is not None:
                self._refuse_others(check_partition(rows))
            self._refuse_folders(rows)
            if self.write.delete_where is not None and connection is not None:
                leaving = self._matching(rows, connection)
                on_deleted(rows.filter(leaving))
                rows = rows.filter(pc.invert(leaving))
            yield rows

    def _in_table_form(self, batch: pa.Table) -> pa.Table:
        rows = as_delta(batch, where=self.where)
        if not rows.num_columns:  # nulls without a type: a table without columns has no rows
            columns = [pa.nulls(len(batch), one.type) for one in self.schema]
            return pa.Table.from_arrays(columns, schema=self.schema)
        return aligned(rows, self.schema)

    def _refuse_null_keys(self, rows: pa.Table) -> None:
        for name in self.write.key:
            if rows[name].null_count:
                raise ResultError(
                    f"{self.where}: the key column {name!r} is null in {rows[name].null_count} of "
                    f"{len(rows)} rows.",
                    safe=_NOTHING_WRITTEN,
                    hint="A row without a key can't be found again: leave such rows out, or give "
                    "them one.",
                )

    def _refuse_others(self, others: pa.Table) -> None:
        if not len(others):
            return
        columns = [column for _, column in self.write.partition_columns]
        values = ", ".join(f"{name}={shown(others[name][0].as_py())!r}" for name in columns)
        keys = ", ".join(map(repr, self.partitions[:3]))
        more = ", ..." if len(self.partitions) > 3 else ""
        raise ResultError(
            f"{self.where}: the result has a row with {values}, which is in none of the "
            f"partitions of this run ({keys}{more}).",
            safe=_NOTHING_WRITTEN,
            hint="Filter the result to the partitions of the run: a run replaces the rows of its "
            "own partitions only.",
        )

    def _refuse_folders(self, rows: pa.Table) -> None:
        for name in self.partition_by:
            problems = refused_values(rows[name], name)
            if problems is not None:
                problem = problems.drop_null()[0].as_py()
                raise ResultError(
                    f"{self.where}: {problem}.",
                    safe=_NOTHING_WRITTEN,
                    hint="Give such rows another value, or partition by another column.",
                )

    def _matching(self, rows: pa.Table, connection: duckdb.DuckDBPyConnection) -> pa.ChunkedArray:
        relation = connection.from_arrow(rows)
        try:
            found = relation.project(f"coalesce(({self.write.delete_where}), false) as leaving")
            leaving: pa.ChunkedArray = found.to_arrow_table()["leaving"]
        except duckdb.Error as error:
            raise self._wrong_predicate(shown(str(error))) from error
        if len(leaving) != len(rows) or not pa.types.is_boolean(leaving.type):
            raise self._wrong_predicate("it is no condition on one row")
        return leaving

    def _wrong_predicate(self, reason: str) -> DefinitionError:
        return DefinitionError(
            f"{self.where}: delete_where={self.write.delete_where!r} can't be used: {reason}.",
            safe=_NOTHING_WRITTEN,
            hint="It is an SQL condition (DuckDB's dialect) on the columns of a row.",
        )


def checked_mapping(
    returned: Mapping[str, object], partitions: tuple[str, ...], *, where: str
) -> None:
    """Refuse a mapping that is not one from the partition keys of the run.

    Raises:
        ResultError: A key is no partition of this run.
    """
    other = next((key for key in returned if key not in partitions), None)
    if other is not None:
        known = ", ".join(map(repr, partitions[:3])) or "none"
        raise ResultError(
            f"{where}: the result is a mapping with the key {shown(other)!r}, which is no "
            f"partition of this run ({known}).",
            safe=_NOTHING_WRITTEN,
            hint="Map the partition keys of the run to their rows, or return the rows alone.",
        )
