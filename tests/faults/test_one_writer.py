"""Dagster's own run queue keeps the runs of a transform apart, by the limit of its pool."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter

from datazone_dagster.dagster_glue.names import BATCH_TAG, pool_name
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import drain_once
from tests.faults.dagster_process import PROJECT, DagsterHome, wait_for
from tests.faults.orders import SOURCE, flow
from tests.faults.world import OrdersTable, assert_exactly_once, catch_up, stream_client

# The default run has tests/dagster_glue/test_pools.py: who sets which limit, and when.
pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(1200)]

LAUNCH = ["-m", "dagster", "job", "launch", "-m", "tests.faults.dagster_project"]
BY_HAND = 3


def runs(instance: DagsterInstance) -> Sequence[RunRecord]:
    return instance.get_run_records(RunsFilter(job_name=flow.job_name))


def test_runs_of_one_transform_wait_for_each_other(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path
) -> None:
    table = OrdersTable(server.endpoint_url, seed=29)
    table.create()
    # Nothing dies here, and a busy machine may start a run late.
    home = DagsterHome(
        tmp_path / "home", server.endpoint_url, layout.uri, start_timeout_seconds=180
    )
    client = stream_client(table.endpoint_url)
    table.write(2)
    drain_once(SOURCE, client, layout)
    with DagsterInstance.from_config(str(tmp_path / "home")) as instance:
        with home.daemon():
            wait_for(lambda: runs(instance), "the first request of the sensor")
            [tags] = [one.dagster_run.tags for one in runs(instance)]
            assert tags[BATCH_TAG].isdecimal()  # the daemon stores hidden tags, too
            limits = {one.name: one.limit for one in instance.event_log_storage.get_pool_limits()}
            assert limits[pool_name(flow)] == 1
            for _ in range(BY_HAND):
                subprocess.run(
                    [sys.executable, *LAUNCH, "-d", str(PROJECT), "-j", flow.job_name],
                    cwd=PROJECT,
                    env=home.environment,
                    check=True,
                    capture_output=True,
                )

            def all_ended() -> bool:
                found = runs(instance)
                return len(found) > BY_HAND and all(one.dagster_run.is_finished for one in found)

            wait_for(all_ended, "the end of all runs", deadline_seconds=200)
        found = runs(instance)
    assert {one.dagster_run.status for one in found} == {DagsterRunStatus.SUCCESS}
    times = sorted((one.start_time or 0.0, one.end_time or 0.0) for one in found)
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(times)), times
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault="several runs requested at once")
