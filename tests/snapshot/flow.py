"""A source with a snapshot, its datasets in every mode, and the steps of a healthy world."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_report import SnapshotReport
from datazone_dagster.model.snapshot_state import SETTLE
from datazone_dagster.pipeline import (
    SnapshotSettings,
    apply_transform,
    drain_once,
    read_dataset,
    snapshot_source,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.new_process import NewProcess
from tests.snapshot.scripted_table import ScriptedTable

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1", start="snapshot")


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        "current": Output(Dataset(id="current")),
        "soft": Output(Dataset(id="soft", deletes="soft")),
        "events": Output(Dataset(id="events", mode="append")),
        "past": Output(Dataset(id="past", mode="history", deletes="soft")),
    },
)
def flow(orders: Frame) -> dict[str, Frame]:
    rows = orders.select(
        "eventID", "eventName", "dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total"
    )
    items = orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")
    return {"current": items, "soft": items, "events": rows, "past": items}


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        "current": Output(Dataset(id="current")),
        "events": Output(Dataset(id="events", mode="append")),
    },
)
def small_flow(orders: Frame) -> dict[str, Frame]:
    rows = orders.select(
        "eventID", "eventName", "dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total"
    )
    return {"current": rows.select("id", "total"), "events": rows}


def item(number: int, total: int = 0) -> dict[str, Any]:
    return {"id": {"S": f"k{number}"}, "total": {"N": str(total)}}


def key(number: int) -> dict[str, Any]:
    return {"id": {"S": f"k{number}"}}


class World:
    """A table with a stream, and a lakehouse that follows it."""

    def __init__(self, layout: Layout, flow: Any = flow, *, page_items: int = 2) -> None:
        self.layout = layout
        self.flow = flow
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", key=("id",), clock=self.clock)
        self.table = ScriptedTable(self.stream, self.clock, page_items=page_items)

    def drain(self) -> None:
        drain_once(SOURCE, NewProcess(self.stream), self.layout, clock=self.clock)

    def apply(self) -> None:
        apply_transform(self.flow, self.layout, clock=self.clock)

    def snapshot(self, **options: Any) -> SnapshotReport:
        options.setdefault("settings", SnapshotSettings(workers=2, sweep_limit=1.0))
        options.setdefault("monotonic", self._seconds)
        options.setdefault("pause", lambda seconds: self.clock.advance(timedelta(seconds=seconds)))
        return snapshot_source(
            SOURCE,
            self.layout,
            self.table,
            dataset_ids=[one.id for one in self.flow.outputs.values()],
            clock=self.clock,
            stop=options.pop("stop", lambda: False),
            **options,
        )

    def _seconds(self) -> float:
        return self.clock.now.timestamp()

    def wait(self) -> None:
        """Let the time pass that the scan waits for, while the drain goes on."""
        self.clock.advance(SETTLE + timedelta(seconds=2))
        self.drain()

    def hand_over(self) -> SnapshotReport:
        """Take the snapshot to its end."""
        for _ in range(20):
            report = self.snapshot()
            if report.is_over:
                self.apply()
                return report
            self.wait()
            self.apply()
        raise AssertionError(f"the snapshot never ends: {report}")

    def rows(self) -> dict[str, str]:
        return rows_of(self.layout, "current")

    def items(self) -> dict[str, str]:
        return {one["id"]["S"]: one["total"]["N"] for one in self.stream.items.values()}

    def events(self) -> Counter[tuple[str, str]]:
        table = read_dataset(self.layout, "events").to_pylist()
        return Counter((row["eventName"], row["id"]) for row in table)


def rows_of(layout: Layout, dataset_id: str) -> dict[str, str]:
    """Return the total of each item that exists, by id; of a history the current rows."""
    live = [
        row
        for row in read_dataset(layout, dataset_id).to_pylist()
        if not row.get("_dz_deleted") and row.get("_dz_is_current", True)
    ]
    found = {row["id"]: row["total"] for row in live}
    assert len(found) == len(live), "a key has two rows"
    return found
