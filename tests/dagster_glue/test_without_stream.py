"""A source without a stream in Dagster: materialized by hand or by schedule, on the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetsDefinition,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    ScheduleDefinition,
    materialize,
)

from datazone_dagster import (
    Dataset,
    DynamoDBStreamsResource,
    Input,
    Lakehouse,
    Output,
    Stream,
    build_definitions,
    transform,
)
from datazone_dagster.api import Transform
from datazone_dagster.local import Fault, FaultKind, LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import read_dataset
from datazone_dagster.sources import DynamoDBSource
from tests.commands.running import run_command
from tests.source.table_conformance import BotoTableWorld


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB() as server:
        yield server


@pytest.fixture
def table(server: LocalDynamoDB, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    return BotoTableWorld(server.endpoint_url).create_table()


class Project:
    """A code location with one transform, and an instance of its own."""

    def __init__(self, server: LocalDynamoDB, table: str, root: Path, instance: Any) -> None:
        self.dynamodb = BotoTableWorld(server.endpoint_url)
        self.server = server
        self.table = table
        self.layout = Layout(str(root))
        self.instance = instance
        self.flow = flow_of(
            DynamoDBSource(
                table,
                region="us-west-2",
                endpoint_url=server.endpoint_url,
                stream_enabled=False,
                name="orders",
            )
        )
        self.defs = build_definitions(
            [self.flow],
            lakehouse=Lakehouse(uri=self.layout.uri),
            dynamodb=DynamoDBStreamsResource(max_attempts=1),
            on_check=print,
        )

    def put(self, *numbers: int, total: int = 0) -> None:
        self.dynamodb.put_many(
            self.table,
            [{"k": {"S": f"k{one}"}, "total": {"N": str(total + one)}} for one in numbers],
        )

    def run(self, *, raise_on_error: bool = True) -> ExecuteInProcessResult:
        return self.defs.resolve_job_def("apply_current").execute_in_process(
            instance=self.instance, raise_on_error=raise_on_error
        )

    def rows(self) -> dict[str, int]:
        rows = read_dataset(self.layout, "current").to_pylist()
        return {row["k"]: int(row["total"]) for row in rows}


def flow_of(source: DynamoDBSource) -> Transform:
    @transform(
        input_mapping={"orders": Input(Stream(source=source))},
        output_mapping={"current": Output(Dataset("current"))},
    )
    def current(orders: Any) -> Any:
        return orders.items()

    return current


@pytest.fixture
def project(server: LocalDynamoDB, table: str, tmp_path: Path) -> Iterator[Project]:
    with DagsterInstance.ephemeral() as instance:
        yield Project(server, table, tmp_path / "lake", instance)


def test_a_run_copies_the_table_and_says_what_it_read(project: Project) -> None:
    project.put(*range(300))
    result = project.run()
    assert project.rows() == {f"k{one}": one for one in range(300)}
    (done,) = result.get_asset_materialization_events()
    metadata: dict[str, Any] = {
        name: value.value for name, value in done.materialization.metadata.items()
    }
    assert (metadata["items_scanned"], metadata["dagster/row_count"]) == (300, 300)
    assert metadata["read_units"] > 0
    assert metadata["duration_seconds"] > 0
    assert metadata["consistent"] == "true"
    assert metadata["consistent_since"] == metadata["scan_started_at"]
    assert "lag_seconds" not in metadata
    checks = {one.check_name: one for one in result.get_asset_check_evaluations()}
    assert set(checks) == {
        *("schema", "quarantine", "complete", "function", "small_files", "unique_keys")
    }
    assert all(one.passed for one in checks.values())
    assert "scan with consistent reads" in (checks["complete"].description or "")

    project.dynamodb.delete(project.table, k={"S": "k7"})
    project.put(1, total=1000)
    project.run()
    assert project.rows() == {f"k{one}": one for one in range(300) if one != 7} | {"k1": 1001}
    assert {one.name for one in Path(project.layout.uri).iterdir()} <= {"current", "_rebuild"}


def test_plain_materialize_works(project: Project) -> None:
    project.put(1)
    resources = dict(project.defs.resources or {})
    assets = [cast("AssetsDefinition", one) for one in project.defs.assets or ()]
    assert materialize(assets, instance=project.instance, resources=resources).success
    assert project.rows() == {"k1": 1}


def test_there_is_no_drain_and_no_repair_of_changes(project: Project) -> None:
    repository = project.defs.get_repository_def()
    names = {one.name for one in repository.sensor_defs}
    names |= {one.name for one in repository.get_all_jobs()}
    assert {"apply_current", "datazone_maintenance"} <= names
    assert not {name for name in names if name.startswith(("drain", "rebuild", "redrive", "snap"))}
    keys = set(repository.asset_graph.asset_check_keys)
    assert AssetCheckKey(AssetKey("current"), "complete") in keys
    assert AssetCheckKey(AssetKey("current"), "lag") not in keys


def test_a_schedule_of_the_project_runs_it(project: Project) -> None:
    schedule = ScheduleDefinition(
        name="nightly_copy",
        job_name="apply_current",
        cron_schedule="0 3 * * *",
    )
    merged = Definitions.merge(project.defs, Definitions(schedules=[schedule]))
    assert merged.resolve_schedule_def("nightly_copy").job_name == "apply_current"


def test_a_scan_that_fails_leaves_the_rows_and_their_checks(project: Project) -> None:
    project.put(1)
    project.run()
    project.put(2)
    project.server.admin.set_faults([Fault("Scan", FaultKind.INTERNAL_ERROR, times=None)])
    try:
        result = project.run(raise_on_error=False)
    finally:
        project.server.admin.set_faults([])
    assert not result.success
    assert project.rows() == {"k1": 1}
    checks = {one.check_name: one.passed for one in result.get_asset_check_evaluations()}
    assert checks["complete"]
    project.run()
    assert project.rows() == {"k1": 1, "k2": 2}


DEFINITIONS = """
from datazone_dagster import Dataset, Input, Lakehouse, Output, Stream, build_definitions, transform
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource("orders", stream_enabled=False)

@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={"current": Output(Dataset("current"))},
)
def current(orders):
    return orders.items()

defs = build_definitions([current], lakehouse=Lakehouse(uri=%r))
"""


def test_commands_maintain_it_and_say_that_there_are_no_changes(
    project: Project, tmp_path: Path
) -> None:
    project.put(1)
    project.run()
    (tmp_path / "definitions.py").write_text(DEFINITIONS % project.layout.uri)
    maintained = run_command("maintain", cwd=tmp_path)
    assert (maintained.returncode, "current: " in maintained.stdout) == (0, True), maintained
    for command in ("rebuild", "redrive"):
        refused = run_command(command, "current", cwd=tmp_path)
        assert refused.returncode != 0
        assert "stream_enabled=False, so it has no change log" in refused.stderr
    assert project.rows() == {"k1": 1}
