"""IO manager: writes datasets by applying their transform, and reads them for other assets."""

# No postponed annotations here: Dagster and Pydantic evaluate them when the class is created.

import typing
from typing import TYPE_CHECKING, Any

from dagster import (
    ConfigurableIOManager,
    DagsterInvariantViolationError,
    InputContext,
    OutputContext,
    ResourceDependency,
)

from datazone_dagster.dagster_glue.lazy_apply import DatasetWrite
from datazone_dagster.dagster_glue.rendering import dataset_metadata
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.errors import DefinitionError

if TYPE_CHECKING:
    from datazone_dagster.pipeline import DatasetReader

_READABLE = (
    "pyarrow.Table, polars.DataFrame, polars.LazyFrame, pandas.DataFrame, a DuckDB relation or "
    "the DatasetReader of Lakehouse.read"
)


class DatasetIOManager(ConfigurableIOManager):
    """Applies transforms to their datasets, and loads datasets for downstream assets.

    A downstream asset receives a dataset in the type of its annotation:

        ```python
        @asset
        def big_orders(processed_orders: pl.DataFrame) -> None: ...
        ```

    Supported types are `pyarrow.Table` (the default without an annotation), `polars.DataFrame`,
    `polars.LazyFrame`, `pandas.DataFrame`, `duckdb.DuckDBPyRelation`, and `DatasetReader`, which
    reads on demand. The rows have all stored columns, including those that the library adds
    (`_dz_...`).
    """

    lakehouse: ResourceDependency[Lakehouse]

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Apply a transform up to the head of the change log, and add the run's metadata.

        Raises:
            TransformError: The function or its result can't be applied; nothing is lost.
            StorageError: The lakehouse can't be read or written.
            DagsterInvariantViolationError: The output is not a dataset of a transform.
        """
        if not isinstance(obj, DatasetWrite):
            raise DagsterInvariantViolationError(
                f"{type(self).__name__} only writes datasets of transforms, not a "
                f"{type(obj).__name__}. Give this asset another io_manager_key."
            )
        applied = obj.lazy_apply.to_dataset(obj.dataset_id, self.lakehouse.layout, context.log)
        context.add_output_metadata(dataset_metadata(applied, preview=obj.lazy_apply.preview))

    def load_input(self, context: InputContext) -> object:
        """Return the full dataset in the type of the parameter's annotation.

        Raises:
            StorageError: The dataset has no table yet, or the table can't be read.
            DefinitionError: The annotated type is not supported.
        """
        reader = self.lakehouse.read(context.asset_key.path[-1])
        return _converted(reader, context.dagster_type.typing_type, context.name)


def _converted(reader: "DatasetReader", wanted: Any, parameter: str) -> object:
    wanted = typing.get_origin(wanted) or wanted
    # Match by name, so that a library is loaded only if its type is annotated.
    module = getattr(wanted, "__module__", "").partition(".")[0].lstrip("_")
    match module, getattr(wanted, "__name__", ""):
        case ("pyarrow", "Table") | ("typing" | "builtins", "Any" | "object") | ("", ""):
            return reader.arrow()
        case "polars", "DataFrame":
            return reader.pl()
        case "polars", "LazyFrame":
            return reader.lazy()
        case "pandas", "DataFrame":
            return reader.arrow().to_pandas()
        case "duckdb", "DuckDBPyRelation":
            return reader.duckdb()
        case "datazone_dagster", "DatasetReader":
            return reader
        case _:
            raise DefinitionError(
                f"The parameter {parameter!r} is annotated as {wanted!r}, which is not supported.",
                hint=f"Annotate it as {_READABLE}.",
            )
