"""A process that drains and applies until it is killed. Preloaded, so that it starts at once."""

from __future__ import annotations

import logging
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess

from datazone_dagster import crash_points
from datazone_dagster.application import ApplySettings
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import DrainSettings, apply_transform, drain_once
from tests.faults.orders import SOURCE, flow, wider_flow
from tests.faults.world import stream_client

SMALL_CHUNKS = ApplySettings(chunk_bytes=1)
SHORT_DRAINS = DrainSettings(budget_bytes=4096, max_workers=4)


def start_worker(
    endpoint_url: str, root: str, *, crash_at: str | None = None, wider: bool = False
) -> ForkServerProcess:
    """Start it in a process of its own.

    Args:
        endpoint_url: Of the local DynamoDB.
        root: The lakehouse.
        crash_at: A point of `crash_points`, or the nth time there: "after read#2".
        wider: Whether the transform adds a column.
    """
    context = get_context("forkserver")
    # Loaded once, before anything starts a thread: each process is a fork of that.
    context.set_forkserver_preload(["tests.faults.child"])
    process = context.Process(target=work, args=(endpoint_url, root, crash_at, wider), daemon=True)
    process.start()
    return process


def work(endpoint_url: str, root: str, crash_at: str | None, wider: bool) -> None:
    logging.disable(logging.WARNING)
    if crash_at is not None:
        crash_points.hook = crash_points.killer(crash_at)
    client, layout = stream_client(endpoint_url), Layout(root)
    while True:
        drain_once(SOURCE, client, layout, settings=SHORT_DRAINS)
        apply_transform(wider_flow if wider else flow, layout, settings=SMALL_CHUNKS)
