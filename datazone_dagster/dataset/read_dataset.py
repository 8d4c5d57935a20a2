"""Datasets for those who read them: Arrow, Polars, pandas and DuckDB, deletion vectors applied.

The scan is that of delta-rs, which applies deletion vectors; what only knows tables without
them (`to_pyarrow_table`, DuckDB's `delta_scan` of some versions) is never asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from datazone_dagster.delta import in_one_line, open_table
from datazone_dagster.errors import DefinitionError, StorageError
from datazone_dagster.model.layout import Layout

if TYPE_CHECKING:
    import duckdb
    import pandas  # type: ignore[import-untyped]  # pandas ships no types
    import polars

KIND = "dataset"


class DatasetReader:
    """A dataset at one version of its table, read when it is asked for.

    Every way of reading shows the same rows, the columns that we add (`_dz_...`) included. It
    stays at its version, so several reads of one reader fit together; a version can be read
    until maintenance removes its files (7 days after they were replaced).

    Example:
        ```python
        orders = lakehouse.read("processed_orders")
        orders.arrow(columns=["order_id", "status"], where="status = 'paid'")
        orders.duckdb().aggregate("status, count(*)")
        ```
    """

    def __init__(self, dataset_id: str, table: DeltaTable, storage_options: dict[str, str]) -> None:
        self.dataset_id = dataset_id
        self.version = table.version()
        self._table = table
        self._storage_options = storage_options

    @property
    def schema(self) -> pa.Schema:
        """Columns and types, as Arrow has them."""
        return pa.schema(self._table.schema().to_arrow())

    def batches(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pa.RecordBatchReader:
        """The rows as a stream of batches, for tables that are larger than memory.

        Args:
            columns: Which to read; the default is all.
            where: An SQL predicate (DataFusion's dialect); only its rows come.

        Raises:
            DefinitionError: A column is not there, or the predicate can't be used.
            StorageError: The table can't be read.
        """
        schema = self.schema
        unknown = [name for name in columns or () if name not in schema.names]
        if unknown:
            raise DefinitionError(
                f"Dataset {self.dataset_id!r} has no column {unknown[0]!r}.",
                hint=f"It has {', '.join(schema.names)}.",
            )
        names = list(columns) if columns is not None else schema.names
        wanted = pa.schema([schema.field(name) for name in names])
        try:
            scanned = pa.RecordBatchReader.from_stream(
                self._table.scan(columns=names, predicate=where)
            )
        except (DeltaError, OSError) as error:
            raise self._failed(error, where) from error
        return pa.RecordBatchReader.from_batches(
            wanted,
            (part for batch in scanned for part in _as(batch, wanted)),
        )

    def arrow(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """The rows as an Arrow table; arguments and errors as for `batches`."""
        try:
            return self.batches(columns, where).read_all()
        except (DeltaError, OSError) as error:
            raise self._failed(error, where) from error

    def pl(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> polars.DataFrame:
        """The rows as a Polars data frame; arguments and errors as for `batches`."""
        library = _library("polars", "pl()")
        return cast("polars.DataFrame", library.from_arrow(self.arrow(columns, where)))

    def lazy(self) -> polars.LazyFrame:
        """A Polars scan of the files: only what a query needs is read."""
        scanned = _library("polars", "lazy()").scan_delta(
            self._table.table_uri,
            version=self.version,
            storage_options=self._storage_options or None,
        )
        return cast("polars.LazyFrame", scanned)

    def df(
        self, columns: Sequence[str] | None = None, where: str | None = None
    ) -> pandas.DataFrame:
        """The rows as a pandas data frame of Arrow-backed columns, as for `batches`."""
        library = _library("pandas", "df()")
        table = self.arrow(columns, where)
        return cast("pandas.DataFrame", table.to_pandas(types_mapper=library.ArrowDtype))

    def duckdb(
        self,
        connection: duckdb.DuckDBPyConnection | None = None,
        columns: Sequence[str] | None = None,
        where: str | None = None,
    ) -> duckdb.DuckDBPyRelation:
        """The rows as a relation of DuckDB.

        Args:
            connection: To join it with others of yours; the default is DuckDB's default one.
            columns: As for `batches`.
            where: As for `batches`.
        """
        import duckdb

        return duckdb.from_arrow(self.arrow(columns, where), connection=connection)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.batches().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        columns = ", ".join(self.schema.names[:8])
        return f"<dataset {self.dataset_id} at version {self.version}: {columns}>"

    def _failed(self, error: Exception, where: str | None) -> Exception:
        if where is not None and not isinstance(error, OSError):
            return DefinitionError(
                f"Dataset {self.dataset_id!r} can't be read where {where!r}: {in_one_line(error)}.",
                hint="The predicate is SQL over the dataset's columns, in their exact spelling.",
            )
        return StorageError(
            f"Dataset {self.dataset_id!r} at {self._table.table_uri} can't be read: "
            f"{in_one_line(error)}.",
            hint="Check the store. If it names a file that is missing, the version is older than "
            "what maintenance keeps.",
        )


def read(layout: Layout, dataset_id: str, version: int | None = None) -> DatasetReader | None:
    """A reader of a dataset, or None if it has no table yet.

    Args:
        layout: Of the lakehouse.
        dataset_id: The dataset.
        version: Of its table; the default is the newest.

    Raises:
        StorageError: The table or that version can't be read.
    """
    options = dict(layout.storage_options)
    table = open_table(layout.dataset(dataset_id), options, KIND)
    if table is None:
        return None
    if version is not None:
        try:
            table.load_as_version(version)
        except (DeltaError, OSError) as error:
            raise StorageError(
                f"Dataset {dataset_id!r} has no version {version}: {in_one_line(error)}.",
                hint=f"Its newest version is {table.version()}; old ones go with maintenance.",
            ) from error
    return DatasetReader(dataset_id, table, options)


def _library(name: str, call: str) -> Any:
    """A library that is an extra of ours."""
    try:
        return import_module(name)
    except ImportError as error:
        raise DefinitionError(
            f"{call} needs {name}, which is not installed.",
            hint=f"Install datazone-dagster[{name}].",
        ) from error


def _as(batch: pa.RecordBatch, schema: pa.Schema) -> list[pa.RecordBatch]:
    """Strings come in several Arrow forms; here they come in the table's."""
    parts: list[pa.RecordBatch] = pa.Table.from_batches([batch]).cast(schema).to_batches()
    return parts
