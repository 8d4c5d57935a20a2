"""The IO manager: writes datasets by applying their transform, reads them for other assets."""

# No postponed annotations here: Dagster and Pydantic read the real ones when the class is made.

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
    from datazone_dagster.dataset.read_dataset import DatasetReader

_READABLE = (
    "pyarrow.Table, polars.DataFrame, polars.LazyFrame, pandas.DataFrame, a DuckDB relation or "
    "the DatasetReader of Lakehouse.read"
)


class DatasetIOManager(ConfigurableIOManager):
    """Applies transforms to their datasets, and loads datasets for downstream assets.

    An asset of yours that takes a dataset gets it in the type of its annotation:

        ```python
        @asset
        def big_orders(processed_orders: pl.DataFrame) -> None: ...
        ```

    `pyarrow.Table` (also without an annotation), `polars.DataFrame`, `polars.LazyFrame`,
    `pandas.DataFrame`, `duckdb.DuckDBPyRelation` and `DatasetReader`, which reads what you ask
    it for, are known. The table comes as it is stored, the columns that we add (`_dz_...`)
    included.
    """

    lakehouse: ResourceDependency[Lakehouse]

    def handle_output(self, context: OutputContext, obj: object) -> None:
        """Apply a transform up to the head of the change log, and show what it did.

        Raises:
            TransformError: The function or its result can't be applied; nothing is lost.
            StorageError: The lakehouse can't be read or written.
        """
        if not isinstance(obj, DatasetWrite):
            raise DagsterInvariantViolationError(
                f"{type(self).__name__} writes datasets of transforms only, not a "
                f"{type(obj).__name__}. Give this asset another io_manager_key."
            )
        applied = obj.application.to_dataset(obj.dataset_id, self.lakehouse.layout, context.log)
        context.add_output_metadata(dataset_metadata(applied, preview=obj.application.preview))

    def load_input(self, context: InputContext) -> object:
        """The whole dataset, in the type that the parameter asks for.

        Raises:
            StorageError: The dataset has no table yet, or it can't be read.
            DefinitionError: The annotation is of a type that we don't know.
        """
        reader = self.lakehouse.read(context.asset_key.path[-1])
        return _converted(reader, context.dagster_type.typing_type, context.name)


def _converted(reader: "DatasetReader", wanted: Any, parameter: str) -> object:
    wanted = typing.get_origin(wanted) or wanted
    # By name, so that none of these libraries is loaded for a type that nobody asked for.
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
                f"The parameter {parameter!r} asks for a dataset as {wanted!r}.",
                hint=f"A dataset comes as {_READABLE}.",
            )
