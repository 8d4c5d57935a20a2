"""Dagster's real daemon and drain runs: one killed, one frozen; others go on within a minute."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter
from dagster._core.scheduler.instigation import InstigatorStatus

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from tests.faults.dagster_process import Daemon, DagsterHome, has_ended, wait_for
from tests.faults.orders import current_rows, landed_event_ids
from tests.faults.world import (
    GRACE_SECONDS,
    OrdersTable,
    assert_exactly_once,
    catch_up,
    grace_seconds,
)

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(1200)]

TAKEN_OVER_WITHIN_SECONDS = 60.0
"""On a machine that has a core for each process; Dagster's own start is most of it."""

_logger = logging.getLogger(__name__)


def all_landed(table: OrdersTable, layout: Layout) -> bool:
    return landed_event_ids(layout) == table.event_ids()


def seconds_to_land(table: OrdersTable, layout: Layout) -> float:
    """Write to every shard, and return the time until all of it has landed."""
    table.write(40)
    started = time.monotonic()
    wait_for(lambda: all_landed(table, layout), "changes of all shards", deadline_seconds=120)
    return time.monotonic() - started


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: str(number.name)
)
def test_the_sets_of_dead_and_of_frozen_runs_are_taken_over_within_a_minute(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path, number: signal.Signals
) -> None:
    table = OrdersTable(server.endpoint_url, seed=31)
    table.create()
    table.write(40)
    home = DagsterHome(tmp_path / "home", server.endpoint_url, layout.uri)
    settings = tmp_path / "home" / "dagster.yaml"
    patient = settings.read_text().replace(
        "start_timeout_seconds: 20", "start_timeout_seconds: 120"
    )
    settings.write_text(patient)
    with home.daemon("tests.faults.drain_runs_project") as daemon:
        wait_for(lambda: all_landed(table, layout), "the first drain runs", deadline_seconds=150)
        hit = daemon.runs()
        assert hit  # one where both shards are of one set
        for pid in hit:
            os.kill(pid, number)
        seconds = seconds_to_land(table, layout)
        _logger.warning("after %s, all sets were read again in %.1f s", number.name, seconds)
        assert seconds < TAKEN_OVER_WITHIN_SECONDS * grace_seconds() / GRACE_SECONDS
        if number is signal.SIGSTOP:
            for pid in hit:
                os.kill(pid, signal.SIGCONT)
            wait_for(lambda: all(map(has_ended, hit)), "the end of runs that were replaced")
        table.end_a_shard()
        seconds_to_land(table, layout)
        wait_for(lambda: rows_equal(table, layout), "the dataset", deadline_seconds=90)
        end(daemon)
    catch_up(table.endpoint_url, layout)
    assert_exactly_once(table, layout, fault=f"{number.name} of drain runs")


def test_drain_runs_end_soon_after_their_sensor_was_stopped(
    server: LocalDynamoDB, layout: Layout, tmp_path: Path
) -> None:
    table = OrdersTable(server.endpoint_url, seed=32)
    table.create()
    table.write(40)
    path = tmp_path / "home"
    home = DagsterHome(path, server.endpoint_url, layout.uri, start_timeout_seconds=120)
    with home.daemon("tests.faults.drain_runs_project") as daemon:
        wait_for(lambda: all_landed(table, layout), "the first drain runs", deadline_seconds=150)
        with DagsterInstance.from_config(str(path)) as instance:
            (state,) = [
                one
                for one in instance.all_instigator_state()
                if one.instigator_name == "drain_orders"
            ]
            job = RunsFilter(job_name="drain_shards_orders")
            assert any(not one.is_finished for one in instance.get_runs(job))
            instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
            wait_for(
                lambda: all(one.is_finished for one in instance.get_runs(job)),
                "the end of the drain runs",
                deadline_seconds=90.0 * grace_seconds() / GRACE_SECONDS,
            )
            assert {one.status for one in instance.get_runs(job)} == {DagsterRunStatus.SUCCESS}
        end(daemon)


def rows_equal(table: OrdersTable, layout: Layout) -> bool:
    return current_rows(layout) == table.rows()


def end(daemon: Daemon) -> None:
    """End everything at once: what is in flight is lost, and read again."""
    daemon.kill()
