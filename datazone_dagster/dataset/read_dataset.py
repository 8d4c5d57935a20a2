"""Reading a dataset into Arrow, Polars, pandas and DuckDB, with deletion vectors applied.

The scan is that of delta-rs, which applies deletion vectors. Readers that only know tables
without them (`to_pyarrow_table`, `delta_scan` in some versions of DuckDB) are never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from datazone_dagster.delta import TABLE_ERRORS, in_one_line, is_of_store, storage_error
from datazone_dagster.delta.store_access import delta_rs_options
from datazone_dagster.delta.table import Table, opened_as
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.layout import ASSET_KIND, DATASET_KIND, Layout
from datazone_dagster.model.store_options import RETRY_OPTIONS

if TYPE_CHECKING:
    import duckdb
    import pandas  # type: ignore[import-untyped]  # pandas ships no types
    import polars


@dataclass(frozen=True)
class ReadLimits:
    """Part of a table that a reader shows.

    Args:
        columns: Names of the columns; None: all.
        where: SQL predicate (DataFusion's dialect) of the rows.
        lazy_filter: Function from the module polars to the same predicate as its expression.
    """

    columns: Sequence[str] | None = None
    where: str | None = None
    lazy_filter: Callable[[Any], Any] | None = None


class DatasetReader:
    """A dataset at one version of its table, read on demand.

    Every method shows the same rows, hidden columns (`_dz_...`) included. A reader stays at its
    version, so several reads of one reader are consistent. A version can be read until
    maintenance removes its files (7 days after they were replaced).

    Example:
        ```python
        orders = lakehouse.read("processed_orders")
        orders.arrow(columns=["order_id", "status"], where="status = 'paid'")
        orders.duckdb().aggregate("status, count(*)")
        ```
    """

    def __init__(
        self,
        dataset_id: str,
        table: Table,
        storage_options: dict[str, str],
        limits: ReadLimits | None = None,
    ) -> None:
        self.dataset_id = dataset_id
        self.version = table.at.version
        self._table = table
        self._storage_options = storage_options
        self._limits = limits or ReadLimits()

    @property
    def schema(self) -> pa.Schema:
        """Columns and their Arrow types."""
        schema, names = self._table.schema, self._limits.columns
        return schema if names is None else pa.schema([schema.field(name) for name in names])

    def require_columns(self, columns: Iterable[str]) -> None:
        """Raise a DefinitionError if the dataset lacks one of these columns."""
        unknown = [name for name in columns if name not in self.schema.names]
        if unknown:
            raise DefinitionError(
                f"{self._title} has no column {unknown[0]!r}.",
                hint=f"It has {', '.join(self.schema.names)}.",
            )

    @property
    def _title(self) -> str:
        return _titled(self.dataset_id, self._table)

    @property
    def row_count(self) -> int:
        """Number of rows, from the log of the table: nothing is read."""
        return self._table.at.live_rows

    def batches(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """Return the rows as a stream of batches, for tables that are larger than memory.

        Args:
            columns: Names of the columns to read; None: all.
            where: SQL predicate (DataFusion's dialect) that selects the rows.

        Raises:
            DefinitionError: A column does not exist, or the predicate can't be used.
            StorageError: The table can't be read.
        """
        schema = self.schema
        self.require_columns(columns or ())
        names = list(columns) if columns is not None else schema.names
        wanted = pa.schema([schema.field(name) for name in names])
        own = self._limits.where
        if own is not None:
            where = own if where is None else f"({own}) and ({where})"
        with self._reading(where):
            found = self._table.scan(names, where)
        return pa.RecordBatchReader.from_batches(wanted, self._converted(found, wanted, where))

    def _converted(
        self, batches: Iterable[pa.RecordBatch], schema: pa.Schema, where: str | None
    ) -> Iterator[pa.RecordBatch]:
        """Cast batches to the table's types: the scan returns strings in several Arrow types."""
        with self._reading(where):
            for batch in batches:
                yield from pa.Table.from_batches([batch]).cast(schema).to_batches()

    def arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Return the rows as an Arrow table; arguments and errors as for `batches`."""
        return self.batches(columns, where).read_all()

    def pl(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> polars.DataFrame:
        """Return the rows as a Polars data frame; arguments and errors as for `batches`."""
        library = _library("polars", "pl()")
        return cast("polars.DataFrame", library.from_arrow(self.arrow(columns, where)))

    def lazy(self) -> polars.LazyFrame:
        """Return a Polars scan of the files, which reads only what a query needs."""
        options = delta_rs_options(self._table.at.store.uri, self._storage_options)
        # Polars has other names and types for these, and limits of its own.
        options = {name: value for name, value in options.items() if name not in RETRY_OPTIONS}
        scanned = _library("polars", "lazy()").scan_delta(
            self._table.at.store.uri, version=self.version, storage_options=options or None
        )
        if self._limits.lazy_filter is not None:
            scanned = scanned.filter(self._limits.lazy_filter(_library("polars", "lazy()")))
        if self._limits.columns is not None:
            scanned = scanned.select(self._limits.columns)
        return cast("polars.LazyFrame", scanned)

    def df(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pandas.DataFrame:
        """Return the rows as a pandas data frame of Arrow-backed columns; see `batches`."""
        library = _library("pandas", "df()")
        table = self.arrow(columns, where)
        return cast("pandas.DataFrame", table.to_pandas(types_mapper=library.ArrowDtype))

    def duckdb(
        self,
        connection: duckdb.DuckDBPyConnection | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """Return the rows as a DuckDB relation.

        Args:
            connection: Connection whose relations can be joined with this one; None: DuckDB's
                default connection. The rows are in memory, as Arrow; what is computed from them
                is bounded by the `memory_limit` of this connection, 80 % of the memory of the
                machine or container unless it is set.
            columns: As for `batches`.
            where: As for `batches`.
        """
        import duckdb

        return duckdb.from_arrow(self.arrow(columns, where), connection=connection)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.batches().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        columns = ", ".join(self.schema.names[:8])
        kind = "table" if self._table.kept.kind == ASSET_KIND else "dataset"
        return f"<{kind} {self.dataset_id} at version {self.version}: {columns}>"

    @contextmanager
    def _reading(self, where: str | None) -> Iterator[None]:
        try:
            yield
        except (*TABLE_ERRORS, pa.ArrowException) as error:
            raise self._failed(error, where) from error

    def _failed(self, error: Exception, where: str | None) -> Exception:
        if where is not None and not is_of_store(error):
            return DefinitionError(
                f"{self._title} can't be read where {where!r}: {in_one_line(error)}.",
                hint="The predicate is SQL over its columns, spelled exactly.",
            )
        return storage_error(
            f"{self._title} at {self._table.at.store.uri} can't be read",
            error,
            safe="",
            hint="Check the store. If the error names a missing file, maintenance has removed the "
            "files of this version.",
        )


def restricted(reader: DatasetReader, limits: ReadLimits) -> DatasetReader:
    """Return a reader of a part of the table, at the same version.

    Raises:
        DefinitionError: A column does not exist.
    """
    if limits.columns is not None:
        reader.require_columns(limits.columns)
    return DatasetReader(reader.dataset_id, reader._table, reader._storage_options, limits)


def _titled(name: str, table: Table) -> str:
    """Return what errors call a table that is read: a dataset, or that of another asset."""
    return f"{'Asset' if table.kept.kind == ASSET_KIND else 'Dataset'} {name!r}"


def _opened(layout: Layout, name: str) -> Table | None:
    """Open the table of a dataset or of another asset."""
    return opened_as(layout.table(name), layout.storage_options, (DATASET_KIND, ASSET_KIND))


def read(layout: Layout, dataset_id: str, version: int | None = None) -> DatasetReader | None:
    """Return a reader of a dataset, or None if it has no table yet.

    Args:
        layout: Layout of the lakehouse.
        dataset_id: The dataset, or the name of the table of another asset.
        version: Version of its table; None: the newest.

    Raises:
        StorageError: The table or that version can't be read.
    """
    table = _opened(layout, dataset_id)
    if table is None:
        return None
    if version is not None:
        try:
            table = table.at_version(version)
        except TABLE_ERRORS as error:
            raise storage_error(
                f"{_titled(dataset_id, table)} has no version {version}",
                error,
                safe="",
                hint=f"Its newest version is {table.at.version}; maintenance removes old versions.",
            ) from error
    return DatasetReader(dataset_id, table, dict(layout.storage_options))


def _library(name: str, call: str) -> Any:
    """Import a library that is an optional extra of this package."""
    try:
        return import_module(name)
    except ImportError as error:
        raise DefinitionError(
            f"{call} needs {name}, which is not installed.",
            hint=f"Install datazone-dagster[{name}].",
        ) from error
