"""Drain runs of other lakehouses: they drain nothing for this one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from dagster import DagsterRun
from dagster._core.code_pointer import CodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from datazone_dagster.dagster_glue.names import END_TAG, LAKEHOUSE_TAG
from datazone_dagster.dagster_glue.runs.run_place import RunPlace
from tests.dagster_glue.conftest import MakeWorld
from tests.dagster_glue.test_drain_runs import drain_requests, orders_of, started


def test_a_run_of_a_former_lakehouse_is_replaced(make_world: MakeWorld) -> None:
    """It read the shards a moment ago, but into other tables: nothing of it may look like ours."""
    world = make_world(orders_of(1))
    world.put("1")
    run = started(world, drain_requests(world.tick())[0], **{LAKEHOUSE_TAG: "s3://former/lake"})
    world.clock.advance(timedelta(seconds=5))
    tick = world.tick()
    assert tick.skip == "More to read, 1 shard open"
    found = world.instance.get_run_by_id(run.run_id)
    assert found is not None
    assert END_TAG in found.tags
    world.instance.report_run_canceled(found)
    assert [one.partition_key for one in drain_requests(world.tick())] == ["1-of-1"]


HERE = ("shop", "__repository__")
CODE = JobPythonOrigin(
    "job",
    RepositoryPythonOrigin("python", CodePointer.from_python_file("definitions.py", "defs", None)),
)


@pytest.mark.parametrize(
    ("repository", "lakehouse", "others", "former"),
    [
        (HERE, "s3://lake", False, False),
        (HERE, "s3://former", False, True),
        (HERE, None, False, False),
        (None, "s3://former", False, True),
        (("eu", "__repository__"), "s3://lake", False, False),
        (("eu", "__repository__"), "s3://eu", True, True),
        (("eu", "__repository__"), None, True, False),
    ],
)
def test_whose_a_run_is(
    repository: tuple[str, str] | None, lakehouse: str | None, others: bool, former: bool
) -> None:
    run = DagsterRun("job", tags={} if lakehouse is None else {LAKEHOUSE_TAG: lakehouse})
    if repository is not None:
        target = LoadableTargetOrigin(python_file="definitions.py")
        location = InProcessCodeLocationOrigin(target, location_name=repository[0])
        origin = RemoteRepositoryOrigin(location, repository[1]).get_job_origin("job")
        run = DagsterRun("job", tags=run.tags, remote_job_origin=origin, job_code_origin=CODE)
    place = RunPlace("s3://lake", HERE)
    assert (place.is_of_others(run), place.has_other_lakehouse(run)) == (others, former)
