"""A process that drains and applies until it is killed; preloaded, so that it starts at once."""

from __future__ import annotations

import logging
from multiprocessing.context import ForkServerProcess
from typing import Literal

from datazone_dagster.apply import ApplySettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, apply_transform, drain_once
from datazone_dagster.process import crash_points
from tests.faults.dagster_child import evaluate_sensor, run_job, run_shared_job
from tests.faults.orders import SOURCE, flow, wider_flow
from tests.faults.world import stream_client
from tests.forked import forked

SMALL_CHUNKS = ApplySettings(chunk_bytes=1)
SHORT_DRAINS = DrainSettings(budget_bytes=4096, max_workers=4)


Role = Literal["worker", "sensor", "listening sensor", "run", "shared run"]


def start(
    endpoint_url: str,
    layout: Layout,
    *,
    role: Role = "worker",
    home: str = "",
    crash_at: str | None = None,
    wider: bool = False,
) -> ForkServerProcess:
    """Start the process.

    Args:
        endpoint_url: Endpoint of the local DynamoDB.
        layout: Locations of the tables.
        role: `worker` drains and applies without Dagster; `sensor` evaluates the drain sensor,
            `listening sensor` in ticks that listen, `run` executes runs, and `shared run` runs
            of two transforms that take turns, all in Dagster.
        home: Directory of the Dagster instance.
        crash_at: Name of a point in `crash_points`, or its nth time: "after read#2".
        wider: Whether the transform adds a column and widens another.
    """
    process = forked().Process(
        target=_work, args=(endpoint_url, layout, role, home, crash_at, wider), daemon=True
    )
    process.start()
    return process


def _work(
    endpoint_url: str, layout: Layout, role: Role, home: str, crash_at: str | None, wider: bool
) -> None:
    if crash_at is not None:
        crash_points.hook = crash_points.killer(crash_at)
    if role == "sensor":
        evaluate_sensor(endpoint_url, layout, home)
    if role == "listening sensor":
        evaluate_sensor(endpoint_url, layout, home, listening=True)
    if role == "shared run":
        run_shared_job(endpoint_url, layout, home)
    if role == "run":
        run_job(endpoint_url, layout, home)
    logging.disable(logging.WARNING)
    client = stream_client(endpoint_url)
    while True:
        drain_once(SOURCE, client, layout, settings=SHORT_DRAINS)
        apply_transform(wider_flow if wider else flow, layout, settings=SMALL_CHUNKS)
