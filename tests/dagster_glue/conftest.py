"""Fixtures with real Dagster and real tables: a scripted stream, an instance in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckKey,
    AssetMaterialization,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    RunRequest,
    build_sensor_context,
)

from datazone_dagster import (
    Dataset,
    DynamoDBStreamsResource,
    Input,
    Lakehouse,
    Output,
    Stream,
    Transform,
    build_definitions,
    transform,
)
from datazone_dagster.dagster_glue.asset_keys import AssetKeys
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import read_dataset
from datazone_dagster.process import shutdown
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.dagster_glue.locations import REPOSITORY, repository_of
from tests.snapshot.scripted_table import ScriptedTable


@pytest.fixture(autouse=True)
def signals_of_others() -> Iterator[None]:
    """Forget a Ctrl-C that a test sends to this process: for a process it is the last one."""
    yield
    shutdown.ending()
    shutdown._interrupted.clear()


KEYS = AssetKeys()
"""Keys without a prefix, as by default."""

SOURCE = DynamoDBSource("orders", start="trim_horizon")
ITEM_COLUMNS = ("dynamodb.Keys.id.S as id", "dynamodb.NewImage.status.S as status")


def orders_transform(
    name: str = "orders",
    *,
    source: DynamoDBSource = SOURCE,
    run_tags: Mapping[str, str] | None = None,
    **dataset: Any,
) -> Transform:
    """Return a transform that merges item id and status into a dataset of the same name."""

    @transform(
        name=name,
        run_tags=run_tags,
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={"rows": Output(Dataset(name, **dataset))},
    )
    def orders(changes: Any) -> object:
        """Orders as they are now."""
        return changes.select(*ITEM_COLUMNS)

    return orders


class ScriptedResource(DynamoDBStreamsResource):
    """The resource, with scripted streams in place of AWS."""

    streams: ClassVar[dict[str, ScriptedStream]] = {}
    tables: ClassVar[dict[str, ScriptedTable]] = {}
    built: ClassVar[list[str]] = []

    def stream_client(self, table_name: str, **_: Any) -> Any:
        self.built.append(table_name)
        return self.streams[table_name]

    def table_client(self, table_name: str, **_: Any) -> Any:
        return self.tables[table_name]


@dataclass(frozen=True)
class Tick:
    """Result of one tick of a sensor, after the daemon's work on it."""

    cursor: str | None
    skip: str | None
    requests: Sequence[RunRequest]
    events: Sequence[Any]

    def checks(self) -> dict[str, AssetCheckEvaluation]:
        return {
            f"{one.asset_key.to_user_string()}:{one.check_name}": one
            for one in self.events
            if isinstance(one, AssetCheckEvaluation)
        }

    def materializations(self) -> list[AssetMaterialization]:
        return [one for one in self.events if isinstance(one, AssetMaterialization)]


@dataclass
class World:
    """A code location on an instance of its own. Ticks and runs happen only on calls."""

    root: Path
    instance: DagsterInstance
    clock: FixedClock
    stream: ScriptedStream
    transforms: list[Transform]
    options: dict[str, Any] = field(default_factory=dict)
    extra: Definitions | None = None
    location: str | None = None
    cursors: dict[str, str | None] = field(default_factory=dict)
    reported: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        ScriptedResource.streams = {"orders": self.stream}
        self.table = ScriptedTable(self.stream, self.clock, page_items=10)
        ScriptedResource.tables = {"orders": self.table}
        ScriptedResource.built = []
        self.layout = Layout(str(self.root / "lake"))
        built = build_definitions(
            self.transforms,
            lakehouse=Lakehouse(uri=self.layout.uri),
            dynamodb=ScriptedResource(),
            clock=self.clock,
            **self.options,
        )
        self.defs = Definitions.merge(built, self.extra) if self.extra else built

    def tick(self, sensor: str = "drain_orders") -> Tick:
        """Evaluate a sensor and process the result as the daemon does."""
        definition = self.defs.resolve_sensor_def(sensor)
        resources = self.defs.resources or {}
        with build_sensor_context(
            instance=self.instance,
            cursor=self.cursors.get(sensor),
            definitions=self.defs,
            repository_name=None if self.location is None else REPOSITORY,
            resources={key: resources[key] for key in definition.required_resource_keys},
        ) as context:
            if self.location is not None:  # as the daemon does
                context._code_location_origin = repository_of(self.location).code_location_origin
            found = definition.evaluate_tick(context)
        for event in found.asset_events:
            self.instance.report_runless_asset_event(event)
        self.cursors[sensor] = found.cursor
        return Tick(found.cursor, found.skip_message, found.run_requests or [], found.asset_events)

    def watch(self, duration: timedelta) -> None:
        """Let time pass with a tick now and every 12 seconds, up to the one that is due then."""
        ends = self.clock.now + duration
        while self.clock.now < ends:
            self.tick()
            self.clock.advance(min(timedelta(seconds=12), ends - self.clock.now))

    def run(
        self,
        job: str,
        *,
        raise_on_error: bool = True,
        tags: Mapping[str, str] | None = None,
        partition: str | None = None,
    ) -> ExecuteInProcessResult:
        """Run a job as if started by hand; with the tags of a request, as the sensor's."""
        return self.defs.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=raise_on_error,
            tags=dict(tags or {}),
            partition_key=partition,
        )

    def run_until_idle(self) -> Tick:
        """Tick, and run what is requested, until a tick requests nothing."""
        for _ in range(10):
            tick = self.tick()
            if not tick.requests:
                return tick
            for request in tick.requests:
                assert request.job_name is not None
                self.run(request.job_name, partition=request.partition_key)
        raise AssertionError("every tick requests a run")

    def put(self, key: str, status: str = "placed", **more: Any) -> None:
        self.stream.put({"id": {"S": key}, "status": {"S": status}, **more})

    def rows(self, dataset: str = "orders") -> dict[str, str]:
        found = read_dataset(self.layout, dataset).to_pylist()
        return {row["id"]: row["status"] for row in found}

    def latest(self, key: AssetCheckKey) -> AssetCheckEvaluation | None:
        record = self.instance.get_latest_asset_check_evaluation_record(key)
        if record is None or record.event is None or record.event.dagster_event is None:
            return None
        facts = record.event.dagster_event.event_specific_data
        return facts if isinstance(facts, AssetCheckEvaluation) else None


MakeWorld = Callable[..., World]


@pytest.fixture
def clock() -> FixedClock:
    # Dagster's own times are real: the clock starts there, so that waits are comparable.
    return FixedClock(datetime.now(timezone.utc).replace(microsecond=0))


@pytest.fixture
def make_world(tmp_path: Path, clock: FixedClock) -> Iterator[MakeWorld]:
    """Return a function that builds a world from transforms and `build_definitions` options."""
    with DagsterInstance.ephemeral() as instance:

        def make(*transforms: Transform, extra: Definitions | None = None, **options: Any) -> World:
            return World(
                tmp_path,
                instance,
                clock,
                ScriptedStream("orders", clock=clock),
                list(transforms) or [orders_transform()],
                options,
                extra,
            )

        yield make


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    """One transform on one stream."""
    return make_world()
