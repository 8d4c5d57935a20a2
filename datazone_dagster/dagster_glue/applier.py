"""How runs apply one transform: its settings, and the apply of one run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass

from dagster import AssetExecutionContext

from datazone_dagster.api import Transform
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.dagster_glue.bucket_runs import bucket_of_run
from datazone_dagster.dagster_glue.expectation_checks import known_expectations
from datazone_dagster.dagster_glue.freshness import known_caught_up_at
from datazone_dagster.dagster_glue.heartbeat import heartbeats
from datazone_dagster.dagster_glue.known_schema import known_columns
from datazone_dagster.dagster_glue.lazy_apply import LazyApply
from datazone_dagster.dagster_glue.names import DYNAMODB_KEY, source_job_name
from datazone_dagster.dagster_glue.resources import DynamoDBStreamsResource
from datazone_dagster.model.protocols import Clock
from datazone_dagster.model.table_scan import TableClient
from datazone_dagster.pipeline import ApplySettings, SnapshotSettings


@dataclass(frozen=True)
class Applier:
    """A transform, and the settings of the call of `build_definitions` that it is from.

    Args:
        transform: Transform to apply.
        keys: Keys of its assets.
        settings: Bounds of a run.
        snapshot_settings: Bounds of a scan, for a source without a stream.
        preview: Whether metadata may show rows.
        clock: Function that returns the time in UTC.
        shares_runs: Whether the runs that the sensor requests are those of all such transforms.
    """

    transform: Transform
    keys: AssetKeys
    settings: ApplySettings
    snapshot_settings: SnapshotSettings
    preview: bool
    clock: Clock
    shares_runs: bool

    def lazy_apply(self, context: AssetExecutionContext, only: Collection[str]) -> LazyApply:
        """Return the apply of a run to the datasets of these ids."""
        source, keys = self.transform.source, self.keys
        bucket = bucket_of_run(context, self.transform)
        return LazyApply(
            self.transform,
            keys,
            self.settings,
            lambda: known_caught_up_at(context.instance, source, keys),
            lambda dataset_id: known_columns(context.instance, keys.dataset(dataset_id)),
            lambda dataset: known_expectations(context.instance, dataset, keys, bucket),
            heartbeats=self.heartbeats(context),
            table_client=lambda: self._table_client(context),
            snapshot_settings=self.snapshot_settings,
            preview=self.preview,
            clock=self.clock,
            only=only,
            bucket=bucket,
        )

    def heartbeats(
        self, context: AssetExecutionContext
    ) -> Callable[[], AbstractContextManager[None]]:
        """Return a factory of the context manager that sends heartbeats of a run."""
        own_jobs = {self.transform.job_name, source_job_name(self.transform.source)}
        return lambda: heartbeats(
            context.instance,
            context.run.run_id,
            self.clock,
            rest_is_quick=context.run.job_name in own_jobs,
        )

    def _table_client(self, context: AssetExecutionContext) -> TableClient:
        source = self.transform.source
        dynamodb: DynamoDBStreamsResource = getattr(context.resources, DYNAMODB_KEY)
        return dynamodb.table_client(
            source.table_name, region=source.region, endpoint_url=source.endpoint_url
        )
