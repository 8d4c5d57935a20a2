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

from datazone_dagster.dagster_glue.application import DatasetWrite
from datazone_dagster.dagster_glue.rendering import dataset_metadata
from datazone_dagster.dagster_glue.resources import Lakehouse
from datazone_dagster.errors import DefinitionError
from datazone_dagster.pipeline import read_dataset

if TYPE_CHECKING:
    import pyarrow as pa

_READABLE = (
    "pyarrow.Table, polars.DataFrame, polars.LazyFrame, pandas.DataFrame or a DuckDB relation"
)


class DatasetIOManager(ConfigurableIOManager):
    """Applies transforms to their datasets, and loads datasets for downstream assets.

    An asset of yours that takes a dataset gets it in the type of its annotation:

        ```python
        @asset
        def big_orders(processed_orders: pl.DataFrame) -> None: ...
        ```

    `pyarrow.Table` (also without an annotation), `polars.DataFrame`, `polars.LazyFrame`,
    `pandas.DataFrame` and `duckdb.DuckDBPyRelation` are known. The table comes as it is
    stored, the columns that we add (`_dz_...`) included.
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
        context.add_output_metadata(
            dataset_metadata(
                applied.report, applied.lag, now=applied.at, preview=obj.application.preview
            )
        )

    def load_input(self, context: InputContext) -> object:
        """The whole dataset, in the type that the parameter asks for.

        Raises:
            StorageError: The dataset has no table yet, or it can't be read.
            DefinitionError: The annotation is of a type that we don't know.
        """
        table = read_dataset(self.lakehouse.layout, context.asset_key.path[-1])
        return _converted(table, context.dagster_type.typing_type, context.name)


def _converted(table: "pa.Table", wanted: Any, parameter: str) -> object:
    wanted = typing.get_origin(wanted) or wanted
    if wanted in (Any, object, None):
        return table
    # By name, so that none of these libraries is loaded for a type that nobody asked for.
    module = getattr(wanted, "__module__", "").partition(".")[0].lstrip("_")
    match module, getattr(wanted, "__name__", ""):
        case "pyarrow", "Table":
            return table
        case "polars", "DataFrame" | "LazyFrame" as name:
            import polars as pl

            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)
            return frame.lazy() if name == "LazyFrame" else frame
        case "pandas", "DataFrame":
            return table.to_pandas()
        case "duckdb", "DuckDBPyRelation":
            import duckdb

            return duckdb.from_arrow(table)
        case _:
            raise DefinitionError(
                f"The parameter {parameter!r} asks for a dataset as {wanted!r}.",
                hint=f"A dataset comes as {_READABLE}.",
            )
