"""A snapshot and a resync of datasets with buckets, in every mode: as without buckets."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, read_dataset, want_snapshot
from tests.snapshot.flow import SOURCE, World, item, key

SETTINGS: dict[str, dict[str, Any]] = {
    "current": {},
    "soft": {"deletes": "soft"},
    "events": {"mode": "append"},
    "past": {"mode": "history", "deletes": "soft"},
}


def flow(prefix: str, buckets: int) -> Transform:
    @transform(
        name=f"{prefix}_flow",
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={
            name: Output(Dataset(f"{prefix}_{name}", buckets=buckets, **settings))
            for name, settings in SETTINGS.items()
        },
    )
    def function(orders: Frame) -> dict[str, Frame]:
        items = orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")
        return dict.fromkeys(SETTINGS, items)

    return function


class Worlds(World):
    """A table whose changes go to datasets with buckets, and to others without."""

    def apply(self) -> None:
        for bucket in key_buckets(2):
            apply_transform(self.flow, self.layout, clock=self.clock, bucket=bucket)
        apply_transform(flow("whole", 1), self.layout, clock=self.clock)

    def found(self, prefix: str, name: str) -> list[str]:
        return sorted(map(str, read_dataset(self.layout, f"{prefix}_{name}").to_pylist()))


@pytest.mark.faults
def test_a_resync_gives_buckets_the_rows_of_one_run(tmp_path: Path) -> None:
    world = Worlds(Layout(str(tmp_path)), flow("parts", 2))
    for number in range(8):
        world.stream.put(item(number))
    world.drain()
    world.hand_over()
    for number in range(3):
        world.stream.put(item(number, 1))
    world.stream.delete(key(7))
    world.drain()
    world.apply()
    # What the stream loses now, the scan finds.
    world.stream.delete(key(6))
    world.stream.put(item(5, 9))
    world.stream.put(item(8, 9))
    world.stream.trim()
    world.clock.advance(timedelta(hours=25))
    world.drain()
    want_snapshot(SOURCE.name, world.layout, "resync", clock=world.clock)
    world.drain()
    world.hand_over()
    world.stream.put(item(4, 4))
    world.drain()
    world.apply()
    world.apply()
    for name in SETTINGS:
        assert world.found("parts", name) == world.found("whole", name), name
    assert len(world.found("parts", "current")) == len(world.items()) == 7
