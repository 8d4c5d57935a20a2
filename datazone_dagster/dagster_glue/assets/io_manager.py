"""IO manager: writes what assets return into Delta tables, and reads tables for other assets."""

# No postponed annotations here: Dagster and Pydantic evaluate them when the class is created.

from dagster import (
    ConfigurableIOManager,
    InputContext,
    MetadataValue,
    OutputContext,
    ResourceDependency,
    TableColumn,
    TableSchema,
)

from datazone_dagster.dagster_glue.assets.asset_parts import (
    partitions_of,
    slice_of,
    step_of,
    table_name,
    write_of,
)
from datazone_dagster.dagster_glue.assets.lazy_apply import DatasetWrite
from datazone_dagster.dagster_glue.checks.rendering import (
    FEW_COLUMNS,
    RawMetadata,
    dataset_metadata,
    rendered,
)
from datazone_dagster.dagster_glue.names import DATASET_METADATA
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.errors import DefinitionError
from datazone_dagster.model.table_written import TableWritten
from datazone_dagster.observe.schema_change import schema_change_markdown, schema_changes
from datazone_dagster.observe.table_metadata import table_metadata


class DatasetIOManager(ConfigurableIOManager):
    """Writes the results of assets as Delta tables of the lakehouse, and loads them for others.

    Any asset may have `io_manager_key="datazone_io_manager"`. What it returns is written to
    `<lakehouse>/<name>`, in one commit; its metadata says how:

        ```python
        @asset(
            io_manager_key="datazone_io_manager",
            metadata={"mode": "merge", "key": ["customer_id"]},
            kinds={"deltalake"},
        )
        def customers(processed_orders: pl.LazyFrame) -> pl.LazyFrame: ...
        ```

    The options are `mode` (`"overwrite"`, `"append"` or `"merge"`), `key`, `order`,
    `delete_where`, `partition_expr`, `partition_by`, `schema_mode` and `deletion_vectors`:
    the page 'Write tables from your own assets' of the documentation explains them. A transform
    is applied to its datasets.

    An asset receives a table in the type of its annotation: `pyarrow.Table` (the default without
    an annotation), `pyarrow.RecordBatchReader`, `polars.DataFrame`, `polars.LazyFrame`,
    `pandas.DataFrame`, `duckdb.DuckDBPyRelation`, `DatasetReader`, which reads on demand, one of
    these with `| None`, or a dict from partition keys to one of them. The metadata
    `{"columns": [...]}` of an input selects columns. Datasets have all stored columns, including
    those that the library adds (`_dz_...`).
    """

    lakehouse: ResourceDependency[Lakehouse]

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Write a result, or apply a transform, and add the metadata of the materialization.

        Raises:
            DefinitionError: The metadata of the asset is wrong, or it is not an asset.
            TransformError: The result can't be written; nothing is lost.
            StorageError: The lakehouse can't be read or written, or another commit came first.
        """
        if isinstance(obj, DatasetWrite):
            applied = obj.lazy_apply.to_dataset(obj.dataset_id, self.lakehouse.layout, context.log)
            keys, preview = obj.lazy_apply.keys, obj.lazy_apply.preview
            context.add_output_metadata(dataset_metadata(applied, keys, preview=preview))
            return
        from datazone_dagster.pipeline.table_calls import write_table

        name = table_name(context)
        write = write_of(context, context.definition_metadata)
        part = slice_of(context, write)
        written = write_table(
            self.lakehouse.layout,
            name,
            write,
            obj,
            part=part,
            step=step_of(context),
            logger=context.log,
        )
        for note in written.notes:
            context.log.warning("%s: %s", name, note)
        metadata = _metadata(written, write.mode)
        if part is not None and len(part.keys) == 1 and write.mode == "overwrite":
            metadata["dagster/partition_row_count"] = written.rows_written
        context.add_output_metadata({"dagster/table_name": name, **metadata})

    def load_input(self, context: InputContext) -> object:
        """Return a table in the type of the parameter's annotation.

        Raises:
            DefinitionError: The annotated type is not supported, or there is no such column.
            StorageError: There is no table yet, or it can't be read.
        """
        from datazone_dagster.pipeline.table_calls import load_table

        upstream = context.upstream_output
        name = table_name(context, upstream.definition_metadata if upstream else None)
        columns = (context.definition_metadata or {}).get("columns")
        if columns is not None and (
            isinstance(columns, str) or not all(isinstance(one, str) for one in columns)
        ):
            raise DefinitionError(
                f"The metadata columns={columns!r} of the input {context.name!r} is not a list of "
                "names.",
                hint='Give one: AssetIn(metadata={"columns": ["id", "total"]}).',
            )
        metadata = upstream.definition_metadata if upstream else None
        if not context.has_asset_partitions or DATASET_METADATA in (metadata or {}):
            part, by_key = None, []  # the partitions of a dataset are its buckets: all are read
        else:
            write = write_of(context, metadata)
            part, by_key = slice_of(context, write), partitions_of(context, write)
        return load_table(
            self.lakehouse.layout,
            name,
            context.dagster_type.typing_type,
            parameter=context.name,
            columns=columns,
            part=part,
            by_key=by_key,
        )


def _metadata(written: TableWritten, mode: str) -> RawMetadata:
    found = rendered(table_metadata(written, mode))
    found["dagster/storage_kind"] = "deltalake"
    changes = schema_changes(written.columns_before, written.columns)
    is_new = written.columns_before is None
    if written.columns and (len(written.columns) <= FEW_COLUMNS or changes or is_new):
        columns = [TableColumn(name, kind) for name, kind in written.columns]
        found["dagster/column_schema"] = MetadataValue.table_schema(TableSchema(columns))
    if changes:
        found["schema_change"] = MetadataValue.md(schema_change_markdown(changes))
    return found
