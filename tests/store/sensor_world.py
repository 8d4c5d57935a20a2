"""A source and its sensor over a lakehouse in an object store, with a scripted stream."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from dagster import DagsterInstance

from datazone_dagster import Lakehouse, build_definitions
from datazone_dagster.model.layout import Layout
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.dagster_glue.conftest import ScriptedResource, World, orders_transform


@contextmanager
def sensor_world(layout: Layout, folder: Path) -> Iterator[World]:
    """Yield the world; `folder` is for what is not in the store."""
    clock = FixedClock(datetime.now(timezone.utc).replace(microsecond=0))
    with DagsterInstance.ephemeral() as instance:
        stream = ScriptedStream("orders", clock=clock)
        found = World(folder, instance, clock, stream, [orders_transform()])
        found.layout = layout
        found.defs = build_definitions(
            found.transforms,
            lakehouse=Lakehouse(uri=layout.uri, storage_options=dict(layout.storage_options)),
            dynamodb=ScriptedResource(),
            clock=clock,
        )
        yield found
