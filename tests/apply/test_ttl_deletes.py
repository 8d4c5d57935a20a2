"""Deletes by time to live: `ttl_deletes="ignore"` leaves them out, and a filter can't."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.errors import DefinitionError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.observe.lag import lag_status
from datazone_dagster.observe.metadata import apply_metadata
from datazone_dagster.pipeline import (
    ApplySettings,
    ConnectionSettings,
    apply_transform,
    connect,
    drain_once,
    quarantine_report,
    read_dataset,
    rebuild_dataset,
    redrive_dataset,
)
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.local.stream_reading import clients_of, create_table

SOURCE = DynamoDBSource("orders")
MODES: dict[str, dict[str, Any]] = {
    "merge": {},
    "soft": {"deletes": "soft"},
    "history": {"mode": "history"},
    "history soft": {"mode": "history", "deletes": "soft"},
    "append": {"mode": "append"},
}


def columns(changes: Any) -> Any:
    return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N as n")


def flow(function: Any = columns, on_error: Any = "fail", **dataset: Any) -> Transform:
    return transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset("d", **dataset))},
        on_error=on_error,
    )(function)


class World:
    """A scripted stream and a lakehouse; `expiries=False` leaves the deletes by TTL out."""

    def __init__(self, root: Path, *, expiries: bool = True) -> None:
        self.layout = Layout(str(root))
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", clock=self.clock)
        self.expiries = expiries

    def put(self, key: str, n: int) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.stream.put({"id": {"S": key}, "n": {"N": str(n)}})

    def delete(self, key: str) -> None:
        self.clock.advance(timedelta(seconds=1))
        self.stream.delete({"id": {"S": key}})

    def expire(self, key: str) -> None:
        self.clock.advance(timedelta(seconds=1))
        if self.expiries:
            self.stream.delete({"id": {"S": key}}, ttl=True)

    def script(self) -> None:
        """Expired, expired and written again, expired and changed before, deleted by a user."""
        for at, key in enumerate(("gone", "back", "changed", "deleted", "lives")):
            self.put(key, at)
        self.drain()
        self.put("changed", 20)
        self.expire("changed")
        self.expire("gone")
        self.expire("back")
        self.delete("deleted")
        self.drain()
        self.put("back", 30)
        self.drain()

    def drain(self) -> None:
        while not drain_once(SOURCE, self.stream, self.layout, clock=self.clock).caught_up:
            pass

    def apply(self, transform: Transform, chunk_bytes: int = 1 << 20) -> ApplyReport:
        settings = ApplySettings(chunk_bytes=chunk_bytes, linger_seconds=0)
        return apply_transform(transform, self.layout, settings=settings, clock=self.clock)["d"]

    def rows(self) -> list[dict[str, Any]]:
        """All rows without their versions: a delete that is left out shifts sequence numbers."""
        found = read_dataset(self.layout, "d").drop_columns(["_dz_version"])
        return sorted(found.to_pylist(), key=repr)


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 20])
@pytest.mark.parametrize("mode", MODES)
def test_ignored_deletes_are_as_if_they_had_not_happened(
    tmp_path: Path, mode: str, chunk_bytes: int
) -> None:
    ignoring = World(tmp_path / "ignoring")
    spared = World(tmp_path / "spared", expiries=False)
    ignoring.script()
    spared.script()
    report = ignoring.apply(flow(ttl_deletes="ignore", **MODES[mode]), chunk_bytes)
    spared.apply(flow(**MODES[mode]), chunk_bytes)
    assert ignoring.rows() == spared.rows()
    assert {row["id"] for row in ignoring.rows()} >= {"gone", "back", "changed", "lives"}
    assert report.deletes.ttl_ignored == 3
    before = ignoring.rows()
    rebuild_dataset(
        flow(ttl_deletes="ignore", **MODES[mode]), "d", ignoring.layout, clock=ignoring.clock
    )
    assert ignoring.rows() == before


def test_by_default_they_are_deletes(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.script()
    report = world.apply(flow())
    assert [row["id"] for row in world.rows()] == ["back", "lives"]
    assert report.deletes.ttl_ignored == 0


def test_an_ignored_delete_leaves_no_tombstone(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", 1)
    world.expire("a")
    world.put("b", 1)
    world.delete("b")
    world.drain()
    world.apply(flow(ttl_deletes="ignore"))
    keys = DeltaTable(world.layout.tombstones("d")).to_pyarrow_table()["_dz_key"].to_pylist()
    assert len(keys) == 1
    assert "b" in keys[0]
    assert "a" not in keys[0]


@pytest.mark.parametrize("mode", MODES)
def test_a_redrive_takes_them_out_of_the_quarantine_and_leaves_the_rows(
    tmp_path: Path, mode: str
) -> None:
    fixed: list[bool] = []

    def picky(changes: Any) -> Any:
        if not fixed and "REMOVE" in changes.arrow()["eventName"].to_pylist():
            raise ValueError("a delete")
        return columns(changes)

    world = World(tmp_path)
    world.put("a", 1)
    world.expire("a")
    world.put("b", 1)
    world.drain()
    picky_flow = flow(picky, "quarantine", ttl_deletes="ignore", **MODES[mode])
    assert world.apply(picky_flow).quarantined == 1
    before = world.rows()
    fixed.append(True)
    assert redrive_dataset(picky_flow, "d", world.layout, clock=world.clock).redriven == 1
    assert world.rows() == before
    assert quarantine_report(picky_flow, "d", world.layout).waiting == 0


def test_one_output_may_ignore_what_the_other_applies(tmp_path: Path) -> None:
    both = transform(
        name="both",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={
            "archive": Output(Dataset("archive", ttl_deletes="ignore")),
            "current": Output(Dataset("current")),
        },
    )(lambda changes: (columns(changes), columns(changes)))
    world = World(tmp_path)
    world.put("a", 1)
    world.put("a", 2)
    world.expire("a")
    world.drain()
    apply_transform(both, world.layout, clock=world.clock)
    assert read_dataset(world.layout, "archive")["n"].to_pylist() == ["2"]
    assert read_dataset(world.layout, "current").num_rows == 0


@pytest.mark.parametrize("mode", ["merge", "soft", "history"])
def test_a_filter_that_hides_deletes_is_reported(tmp_path: Path, mode: str) -> None:
    def without_expiries(changes: Any) -> Any:
        return columns(
            changes.filter(
                "userIdentity.principalId is distinct from 'dynamodb.amazonaws.com' "
                "or eventName <> 'REMOVE'"
            )
        )

    world = World(tmp_path)
    world.put("a", 1)
    world.drain()
    shown = shown_by(world, world.apply(flow(without_expiries, **MODES[mode])))
    assert (shown["deletes_filtered"], "deletes_filtered_note" in shown) == (0, False)
    world.expire("a")
    world.put("b", 1)
    world.delete("b")
    world.drain()
    shown = shown_by(world, world.apply(flow(without_expiries, **MODES[mode])))
    assert shown["deletes_filtered"] == 1
    note = str(shown["deletes_filtered_note"])
    assert "no row for 1 deletes, 1 of them by time to live" in note
    assert "ttl_deletes='ignore'" in note


def test_append_mode_stores_what_the_filter_leaves_and_reports_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", 1)
    world.delete("a")
    world.drain()
    report = world.apply(
        flow(lambda changes: columns(changes.filter("eventName <> 'REMOVE'")), mode="append")
    )
    assert report.deletes.filtered == 0
    assert read_dataset(world.layout, "d").num_rows == 1


def shown_by(world: World, report: ApplyReport) -> dict[str, Any]:
    now = world.clock()
    lag = lag_status(
        now=now,
        max_lag=timedelta(minutes=5),
        position=report.position,
        head_batch=report.head,
        oldest_unapplied_event_time=None,
        caught_up_at=now,
    )
    return dict(apply_metadata(report, lag, now=now))


def test_other_values_are_refused() -> None:
    with pytest.raises(DefinitionError, match="ttl_deletes is one of 'apply', 'ignore'"):
        Dataset("d", ttl_deletes="keep")  # type: ignore[arg-type]  # that is the point


def test_the_service_s_own_deletes_over_the_wire(tmp_path: Path) -> None:
    with LocalDynamoDB(shards=1) as server:
        table = create_table(clients_of(server), "orders")
        table.clients.dynamodb.update_time_to_live(
            TableName="orders", TimeToLiveSpecification={"AttributeName": "ends", "Enabled": True}
        )
        soon = int(server.admin.now()) + 60
        table.put("expires", ends={"N": str(soon)})
        table.put("lives")
        table.put("deleted")
        server.admin.advance_clock(120)
        assert server.admin.sweep_ttl() == 1
        table.delete("deleted")
        client = connect("orders", ConnectionSettings(endpoint_url=server.endpoint_url))
        layout = Layout(str(tmp_path))
        while not drain_once(SOURCE, client, layout).caught_up:
            pass
        by_id = flow(
            lambda changes: changes.select("dynamodb.Keys.id.S as id"), ttl_deletes="ignore"
        )
        apply_transform(by_id, layout)
        assert sorted(read_dataset(layout, "d")["id"].to_pylist()) == ["expires", "lives"]
