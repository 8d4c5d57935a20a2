"""What shared runs leave alone: jobs of transforms that have the names of theirs."""

from __future__ import annotations

import time
from typing import Any

from dagster import DagsterRunStatus

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.dagster_glue.names import END_TAG, SOURCE_TAG, VERSION_TAG
from datazone_dagster.pipeline import ApplySettings
from datazone_dagster.sources import DynamoDBSource
from tests.dagster_glue.conftest import ITEM_COLUMNS, MakeWorld
from tests.dagster_glue.test_source_runs import JOB, flow

IDLE_SECONDS = 0.3


def test_a_transform_with_the_name_of_the_job_has_runs_as_any_other(make_world: MakeWorld) -> None:
    settings = ApplySettings(idle_seconds=IDLE_SECONDS)
    world = make_world(flow("source_orders"), flow("b"), apply_settings=settings)
    world.put("first")
    requests = {one.job_name: one for one in world.tick().requests}
    assert set(requests) == {JOB, "apply_b"}
    run = world.instance.create_run_for_job(
        world.defs.resolve_job_def(JOB), status=DagsterRunStatus.STARTED, tags=requests[JOB].tags
    )
    assert [one.job_name for one in world.tick().requests] == ["apply_b"]
    found = world.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert END_TAG not in found.tags
    world.instance.report_run_canceled(found)
    began_seconds = time.monotonic()
    world.run(JOB, tags=requests[JOB].tags)
    assert time.monotonic() - began_seconds >= IDLE_SECONDS  # it stays
    assert world.rows("source_orders") == {"first": "placed"}


def test_a_run_of_a_transform_of_another_source_is_not_ended(make_world: MakeWorld) -> None:
    users = DynamoDBSource("users", start="trim_horizon")

    @transform(
        name="source_orders",
        input_mapping={"changes": Input(Stream(source=users))},
        output_mapping={"rows": Output(Dataset("users"))},
    )
    def other(changes: Any) -> Any:
        return changes.select(*ITEM_COLUMNS)

    world = make_world(flow("b"), other)
    run = world.instance.create_run_for_job(
        world.defs.resolve_job_def(JOB),
        status=DagsterRunStatus.STARTED,
        tags={SOURCE_TAG: "users", VERSION_TAG: "1"},
    )
    world.put("first")
    assert [one.job_name for one in world.tick().requests] == ["apply_b"]
    found = world.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert END_TAG not in found.tags
