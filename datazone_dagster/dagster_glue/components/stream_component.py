"""A Dagster component: one DynamoDB table into one dataset, declared in YAML."""

# No postponed annotations here: Dagster makes the schema of the YAML file from them.

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import dagster as dg

from datazone_dagster.api import Transform
from datazone_dagster.api.function_version import fingerprint
from datazone_dagster.dagster_glue.components.component_fields import described, listed
from datazone_dagster.dagster_glue.components.component_options import ComponentOptions
from datazone_dagster.dagster_glue.components.component_scaffolder import DynamoDBStreamScaffolder


@dg.scaffold_with(DynamoDBStreamScaffolder)
@dataclass
class DynamoDBStreamComponent(ComponentOptions, dg.Component):
    """Turns the stream of a DynamoDB table into a Delta table.

    The columns are those that `select` lists, or those that the function `transform` returns, or,
    without both, the attributes of the items. Several components may read one table: they share
    its drain. Subclass it to override `get_asset_spec` or `execute`.
    """

    table_name: Annotated[
        str, described("Name of the DynamoDB table. It needs a stream with new images.", "orders")
    ]
    dataset: Annotated[
        str,
        described("Id of the dataset: its folder in the lakehouse and its asset.", "open_orders"),
    ]
    select: Annotated[
        list[str] | None,
        described(
            "Columns, each an SQL expression over the stream record. Unset: those of the "
            "function, or the attributes of the items.",
            ["dynamodb.Keys.orderId.S as order_id", "dynamodb.NewImage.status.S as status"],
        ),
    ] = None
    transform: Annotated[
        str | None,
        described(
            "Dotted path of a function that takes the frame of changes and returns rows. With "
            "`select`, the columns are selected from what it returns.",
            "my_project.transforms.open_orders",
        ),
    ] = None
    row_wise: Annotated[
        bool, described("Whether a row depends on its own change only, in Python code.", True)
    ] = False
    source_name: Annotated[
        str | None,
        described("Name of the source; unset: made of the table's name.", "orders_eu"),
    ] = None
    stream_enabled: Annotated[
        bool, described("Whether the table has a stream; false: each run scans the table.", False)
    ] = True
    kinesis_stream: Annotated[
        str | None,
        described(
            "Name of the Kinesis stream that the table sends its changes to; unset: its own stream "
            "is read.",
            "orders-changes",
        ),
    ] = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what the list of components shows."""
        return dg.ComponentTypeSpec(
            description="Turns the stream of a DynamoDB table into a Delta table.",
            tags=["dynamodb", "deltalake", "cdc"],
            produces=["asset", "asset_check", "sensor", "job", "schedule", "resource"],
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build assets, checks, sensor, jobs and resources."""
        _ = context
        return self._definitions_of([self.build_transform()])

    def build_transform(self) -> Transform:
        """Return the transform: source, function and dataset."""
        kind: dict[str, Any] = {"stream_enabled": self.stream_enabled}
        if self.kinesis_stream is not None:
            if not self.stream_enabled:
                hint = "It has a stream: leave `stream_enabled` out."
                raise self._refused("kinesis_stream", self.kinesis_stream, hint)
            kind = {"kinesis_stream": self.kinesis_stream}
        source = self._source_of(self.table_name, name=self.source_name or "", **kind)
        parameter, function = self._function()
        version = listed(self.select)
        if self.transform is not None:
            version.append(fingerprint(self._imported(self.transform)))
        return self._transform_of(
            source,
            self.dataset,
            function,
            parameter=parameter,
            version=version,
            row_wise=self.row_wise,
        )

    @property
    def _titled(self) -> str:
        """Name of the component in error texts."""
        return f"Component of dataset {self.dataset!r}"

    @property
    def _has_user_code(self) -> bool:
        """Whether `transform` names a function of the project."""
        return self.transform is not None

    def _function(self) -> tuple[str, Callable[..., Any]]:
        """Return the name of the parameter that takes the changes, and the function."""
        columns = None if self.select is None else listed(self.select)
        if self.transform is None:

            def select_or_all(changes: Any) -> Any:
                return changes.items() if columns is None else changes.select(*columns)

            return "changes", select_or_all
        function = self._imported(self.transform)
        parameter = next(iter(inspect.signature(function).parameters), "changes")
        if columns is None:
            return parameter, function

        def select_of_function(changes: Any) -> Any:
            return function(**{parameter: changes}).select(*columns)

        return "changes", select_of_function

    def _imported(self, path: str) -> Any:
        module, _, name = path.rpartition(".")
        try:
            found: Any = getattr(import_module(module), name) if module else None
        except (ImportError, AttributeError) as error:
            raise self._refused("transform", path, f"It can't be imported: {error}.") from error
        if isinstance(found, Transform):
            hint = "It is a decorated one, with a table of its own: name a plain function."
            raise self._refused("transform", path, hint)
        if not callable(found):
            raise self._refused("transform", path, "Name a function: my_project.transforms.orders.")
        return found
