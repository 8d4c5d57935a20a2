"""A Dagster component: one DynamoDB table into one dataset, declared in YAML."""

# No postponed annotations here: Dagster makes the schema of the YAML file from them.

import hashlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib import import_module
from typing import Annotated, Any

import dagster as dg

from datazone_dagster.api import Dataset, DynamoDBSource, Input, Output, Stream, Transform
from datazone_dagster.api import transform as declare
from datazone_dagster.api.function_version import fingerprint
from datazone_dagster.dagster_glue.component_fields import (
    DynamoDBCredentials,
    LakehouseAttributes,
    described,
)
from datazone_dagster.dagster_glue.component_scaffolder import DynamoDBStreamScaffolder
from datazone_dagster.dagster_glue.definitions import build_definitions
from datazone_dagster.dagster_glue.maintenance import QUIET_HOUR
from datazone_dagster.dagster_glue.translator import DatazoneAssetData, ExecutingTranslator
from datazone_dagster.errors import DefinitionError

_STATUSES = {one.value: one for one in dg.DefaultSensorStatus}


@dg.scaffold_with(DynamoDBStreamScaffolder)
@dataclass
class DynamoDBStreamComponent(dg.Component, dg.Resolvable):
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
    region: Annotated[
        str | None, described("AWS region; unset: that of the credentials.", "us-west-2")
    ] = None
    source_name: Annotated[
        str | None,
        described("Name of the source; unset: made of the table's name.", "orders_eu"),
    ] = None
    stream_enabled: Annotated[
        bool, described("Whether the table has a stream; false: each run scans the table.", False)
    ] = True
    start: Annotated[
        str,
        described("Start of a new source: snapshot, trim_horizon or latest.", "trim_horizon"),
    ] = "snapshot"
    mask: Annotated[
        dict[str, str] | None,
        described("Kind of mask by attribute path: hash, last4, null or drop.", {"email": "hash"}),
    ] = None
    mode: Annotated[str, described("Mode: merge, append or history.", "history")] = "merge"
    deletes: Annotated[str, described("Deletes: hard or soft.", "soft")] = "hard"
    partition_by: Annotated[
        list[str] | None, described("Columns that partition the table.", ["order_date"])
    ] = None
    max_lag_seconds: Annotated[
        float, described("Lag from which the check `lag` fails, in seconds.", 600.0)
    ] = 300.0
    on_error: Annotated[
        str, described("What a failing function does: fail or quarantine.", "quarantine")
    ] = "fail"
    on_mismatch: Annotated[
        str, described("What a value of another type does: null, quarantine or fail.", "fail")
    ] = "null"
    row_wise: Annotated[
        bool, described("Whether a row depends on its own change only, in Python code.", True)
    ] = False
    description: Annotated[
        str | None, described("Text of the asset.", "Every order that is open.")
    ] = None
    group_name: Annotated[
        str | None, described("Group of the asset; unset: the name of the source.", "shop")
    ] = None
    owners: Annotated[
        list[str] | None, described("Owners: e-mail addresses or team:<name>.", ["team:shop"])
    ] = None
    tags: Annotated[dict[str, str] | None, described("Tags of the asset.", {"tier": "prod"})] = None
    lakehouse: Annotated[
        LakehouseAttributes | None,
        described(
            "Location of the tables; unset: DATAZONE_LAKEHOUSE_URI, else .datazone/lakehouse.",
            {"uri": "s3://acme-lake/orders"},
        ),
    ] = None
    credentials: Annotated[
        DynamoDBCredentials | None,
        described(
            "Connection to DynamoDB; unset: the AWS environment and profile.",
            {"region_name": "us-west-2", "profile_name": "shop"},
        ),
    ] = None
    preview: Annotated[
        bool, described("Whether metadata show a few rows; false for confidential data.", False)
    ] = True
    default_status: Annotated[
        str | None,
        described(
            "Status of new sensors: RUNNING or STOPPED; unset: running, but for `dagster dev` "
            "with AWS keys and a local lakehouse.",
            "STOPPED",
        ),
    ] = None
    tick_seconds: Annotated[
        int | None,
        described("Shortest time between drains, in seconds; unset: 5, or 15 remotely.", 30),
    ] = None
    maintenance_cron: Annotated[
        str | None, described("Schedule of maintenance, in UTC; null: none.", "0 4 * * *")
    ] = QUIET_HOUR
    audit_cron: Annotated[
        str | None, described("Schedule of the check `audit`, in UTC; null: none.", "0 4 * * *")
    ] = None

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        """Return what the list of components shows."""
        return dg.ComponentTypeSpec(
            description="Turns the stream of a DynamoDB table into a Delta table.",
            tags=["dynamodb", "deltalake", "cdc"],
            produces=["asset", "asset_check", "sensor", "job", "schedule", "resource"],
        )

    def get_asset_spec(self, data: DatazoneAssetData) -> dg.AssetSpec:
        """Return the spec of the dataset or the change log; override it to change how it looks."""
        return data.default_spec

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[Any]) -> Iterator[Any]:
        """Apply the changes, and yield what the run reports; override it to do more around.

        Nothing is applied before the first event is taken.
        """
        _ = context
        yield from events

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Build assets, checks, sensor, jobs and resources."""
        _ = context
        status = self.default_status
        if status is not None and status not in _STATUSES:
            raise self._refused("default_status", status, f"Allowed: {', '.join(_STATUSES)}.")
        return build_definitions(
            self.build_transform(),
            lakehouse=None if self.lakehouse is None else self.lakehouse.resource(),
            dynamodb=None if self.credentials is None else self.credentials.resource(),
            preview=self.preview,
            default_status=None if status is None else _STATUSES[status],
            tick_seconds=self.tick_seconds,
            maintenance_cron=self.maintenance_cron,
            audit_cron=self.audit_cron,
            translator=_ComponentTranslator(self),
        )

    def build_transform(self) -> Transform:
        """Return the transform: source, function and dataset."""
        options: Any = {
            "region": self.region,
            "stream_enabled": self.stream_enabled,
            "start": self.start,
            "mask": self.mask or (),
            "name": self.source_name or "",
        }
        source = DynamoDBSource(self.table_name, **options)
        settings: Any = {"mode": self.mode, "deletes": self.deletes, "tags": self.tags or ()}
        dataset = Dataset(
            self.dataset,
            partition_by=self.partition_by or (),
            max_lag=timedelta(seconds=self.max_lag_seconds),
            description=self.description,
            owners=self.owners or (),
            group_name=self.group_name,
            **settings,
        )
        handling: Any = {"on_error": self.on_error, "on_mismatch": self.on_mismatch}
        parameter, function = self._function()
        name = self.dataset.replace("-", "_")
        decorate = declare(
            input_mapping={parameter: Input(Stream(source=source))},
            output_mapping={name: Output(dataset)},
            name=name,
            version=self._version(),
            row_wise=self.row_wise,
            **handling,
        )
        return decorate(function)

    def _function(self) -> tuple[str, Callable[..., Any]]:
        """Return the name of the parameter that takes the changes, and the function."""
        columns = self.select
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

    def _version(self) -> str:
        """Return the version of the function: its code, and the columns of the YAML file."""
        parts = list(self.select or ())
        if self.transform is not None:
            parts.append(fingerprint(self._imported(self.transform)))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]

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

    def _refused(self, field: str, value: object, hint: str) -> DefinitionError:
        return DefinitionError(
            f"Component of dataset {self.dataset!r}: {field}: {value!r} is not allowed.", hint=hint
        )


class _ComponentTranslator(ExecutingTranslator):
    """Asks a component."""

    def __init__(self, component: DynamoDBStreamComponent) -> None:
        self._component = component

    def get_asset_spec(self, data: DatazoneAssetData) -> dg.AssetSpec:
        if data.dataset is not None and self._component.transform is None:
            # The function is one of this file: nothing that the user could edit.
            metadata = {**data.default_spec.metadata}
            metadata.pop("dagster/code_references", None)
            data = replace(
                data, default_spec=data.default_spec.replace_attributes(metadata=metadata)
            )
        return self._component.get_asset_spec(data)

    def execute(
        self, context: dg.AssetExecutionContext, transform: Transform, events: Iterator[Any]
    ) -> Iterator[Any]:
        _ = transform
        return self._component.execute(context, events)
