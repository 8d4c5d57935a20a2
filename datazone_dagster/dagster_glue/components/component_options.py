"""Options that all components share, for sources, datasets and `build_definitions`."""

# No postponed annotations here: Dagster makes the schema of the YAML file from them.

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any

import dagster as dg

from datazone_dagster.api import (
    Dataset,
    DynamoDBSource,
    Input,
    KinesisSource,
    Output,
    Stream,
    Transform,
)
from datazone_dagster.api import transform as declare
from datazone_dagster.dagster_glue.components.component_fields import (
    DynamoDBCredentials,
    LakehouseAttributes,
    described,
    mapped,
)
from datazone_dagster.dagster_glue.definitions import build_definitions
from datazone_dagster.dagster_glue.jobs.maintenance import QUIET_HOUR
from datazone_dagster.dagster_glue.translator import DatazoneAssetData, ExecutingTranslator
from datazone_dagster.errors import DefinitionError

_STATUSES = {one.value: one for one in dg.DefaultSensorStatus}


@dataclass(kw_only=True)
class ComponentOptions(dg.Resolvable):
    """Fields and methods of every component, each field a keyword."""

    region: Annotated[
        str | None, described("AWS region; unset: that of the credentials.", "us-west-2")
    ] = None
    start: Annotated[
        str,
        described("Start of a new source: snapshot, trim_horizon or latest.", "trim_horizon"),
    ] = "snapshot"
    mask: Annotated[
        dict[str, str] | None,
        described("Kind of mask by attribute path: hash, last4, null or drop.", {"email": "hash"}),
    ] = None
    drain: Annotated[
        str,
        described(
            "Who reads the shards of a stream: tick, the sensor; runs, a number of runs that stay.",
            "runs",
        ),
    ] = "tick"
    drain_workers: Annotated[
        int | None,
        described("With `drain: runs`: number of these runs of each table, 1 to 32.", 4),
    ] = None
    mode: Annotated[str, described("Mode: merge, append or history.", "history")] = "merge"
    deletes: Annotated[str, described("Deletes: hard or soft.", "soft")] = "hard"
    partition_by: Annotated[
        list[str] | None, described("Columns that partition the table.", ["order_date"])
    ] = None
    buckets: Annotated[
        int,
        described(
            "Number of shares of the keys that runs apply independently: a power of two up to 256.",
            16,
        ),
    ] = 1
    max_lag_seconds: Annotated[
        float, described("Lag from which the check `lag` fails, in seconds.", 600.0)
    ] = 300.0
    on_error: Annotated[
        str, described("What a failing function does: fail or quarantine.", "quarantine")
    ] = "fail"
    on_mismatch: Annotated[
        str, described("What a value of another type does: null, quarantine or fail.", "fail")
    ] = "null"
    description: Annotated[
        str | None, described("Text of the asset.", "Every order that is open.")
    ] = None
    group_name: Annotated[
        str | None, described("Group of the asset; unset: the name of the source.", "shop")
    ] = None
    key_prefix: Annotated[
        list[str] | None,
        described("First parts of the keys of all assets; unset: none.", ["team", "raw"]),
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
    one_run_per_source: Annotated[
        bool,
        described(
            "Whether the components of one table share a run: set it in each of them. One that "
            "overrides `execute` has runs of its own.",
            True,
        ),
    ] = False

    @property
    def _titled(self) -> str:
        """Name of the component in error texts."""
        return type(self).__name__

    @property
    def _has_user_code(self) -> bool:
        """Whether the function of the datasets is one of the project, which an editor can open."""
        return False

    def get_asset_spec(self, data: DatazoneAssetData) -> dg.AssetSpec:
        """Return the spec of the dataset or the change log; override it to change how it looks."""
        return data.default_spec

    def execute(self, context: dg.AssetExecutionContext, events: Iterator[Any]) -> Iterator[Any]:
        """Apply the changes, and yield what the run reports; override it to do more around.

        Nothing is applied before the first event is taken.
        """
        _ = context
        yield from events

    def _source_of(
        self, table_name: str, kinesis_stream: str | None = None, **more: Any
    ) -> DynamoDBSource:
        """Return the source of a table; `more` adds to the fields, or wins over them."""
        mask = mapped(self._titled, "mask", self.mask)
        options: Any = {"region": self.region, "start": self.start, "mask": mask, **more}
        if kinesis_stream is None:
            workers: Any = {"drain": self.drain, "drain_workers": self.drain_workers}
            return DynamoDBSource(table_name, **workers, **options)
        hint = "Leave it out: ticks of the sensor read a stream of Kinesis."
        if self.drain != "tick":
            raise self._refused("drain", self.drain, hint)
        if self.drain_workers is not None:
            raise self._refused("drain_workers", self.drain_workers, hint)
        return KinesisSource(table_name, kinesis_stream, **options)

    def _transform_of(
        self,
        source: DynamoDBSource,
        dataset_id: str,
        function: Callable[..., Any],
        *,
        parameter: str = "changes",
        version: Iterable[str] = (),
        row_wise: bool = False,
    ) -> Transform:
        """Return the transform from a source to a dataset.

        Args:
            source: The source.
            dataset_id: Id of the dataset; the transform has its name, too.
            function: Function from changes to rows.
            parameter: Name of the function's parameter.
            version: Texts that make another version of the function when they change.
            row_wise: As for `transform`.
        """
        tags = mapped(self._titled, "tags", self.tags)
        settings: Any = {"mode": self.mode, "deletes": self.deletes, "tags": tags}
        dataset = Dataset(
            dataset_id,
            partition_by=self.partition_by or (),
            buckets=self.buckets,
            max_lag=timedelta(seconds=self.max_lag_seconds),
            description=self.description,
            owners=self.owners or (),
            group_name=self.group_name,
            **settings,
        )
        handling: Any = {"on_error": self.on_error, "on_mismatch": self.on_mismatch}
        name = dataset_id.replace("-", "_")
        decorate = declare(
            input_mapping={parameter: Input(Stream(source=source))},
            output_mapping={name: Output(dataset)},
            name=name,
            version=hashlib.sha256("\n".join(version).encode()).hexdigest()[:12],
            row_wise=row_wise,
            **handling,
        )
        return decorate(function)

    def _definitions_of(self, transforms: Sequence[Transform]) -> dg.Definitions:
        """Return assets, checks, sensors, jobs and resources of transforms."""
        status = self.default_status
        if status is not None and status not in _STATUSES:
            raise self._refused("default_status", status, f"Allowed: {', '.join(_STATUSES)}.")
        return build_definitions(
            transforms,
            lakehouse=None if self.lakehouse is None else self.lakehouse.resource(),
            dynamodb=None if self.credentials is None else self.credentials.resource(),
            preview=self.preview,
            default_status=None if status is None else _STATUSES[status],
            tick_seconds=self.tick_seconds,
            maintenance_cron=self.maintenance_cron,
            audit_cron=self.audit_cron,
            translator=_ComponentTranslator(self),
            one_run_per_source=self.one_run_per_source,
            key_prefix=self.key_prefix,
        )

    def _refused(self, field: str, value: object, hint: str) -> DefinitionError:
        """Return the error for a field that is not allowed."""
        return DefinitionError(f"{self._titled}: {field}: {value!r} is not allowed.", hint=hint)


class _ComponentTranslator(ExecutingTranslator):
    """Asks a component."""

    def __init__(self, component: ComponentOptions) -> None:
        self._component = component
        super().__init__(does_more=type(component).execute is not ComponentOptions.execute)

    def get_asset_spec(self, data: DatazoneAssetData) -> dg.AssetSpec:
        if data.dataset is not None and not self._component._has_user_code:
            # The function is one of the library: nothing that the user could edit.
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
