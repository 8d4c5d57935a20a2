"""A process that drains and applies until it is killed; preloaded, so that it starts at once."""

from __future__ import annotations

import logging
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Literal

from datazone_dagster.apply import ApplySettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, apply_transform, drain_once
from datazone_dagster.process import crash_points
from tests.faults.dagster_child import evaluate_sensor, run_job, run_shared_job
from tests.faults.orders import SOURCE, flow, wider_flow
from tests.faults.power import power_cut
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
    power_cut_at: str | None = None,
    seed: int = 0,
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
        power_cut_at: Nth time of a point at which the machine loses power, see `power_cut`.
        seed: Decides what a loss of power loses.
    """
    process = forked().Process(
        target=_work,
        args=(endpoint_url, layout, role, home, crash_at, wider),
        kwargs={"power_cut_at": power_cut_at, "seed": seed},
        daemon=True,
    )
    process.start()
    return process


def _work(
    endpoint_url: str,
    layout: Layout,
    role: Role,
    home: str,
    crash_at: str | None,
    wider: bool,
    *,
    power_cut_at: str | None,
    seed: int,
) -> None:
    if power_cut_at is not None:
        crash_points.hook = power_cut(Path(layout.uri), power_cut_at, seed)
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
