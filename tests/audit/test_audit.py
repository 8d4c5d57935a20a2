"""Audits of real tables, with planted differences and scripted traffic."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.audit.second_look import KEEPS_CHANGING, NO_KEY, NOT_DRAINED, SecondLook
from datazone_dagster.changelog.log_head import AWAITED_PROPERTY
from datazone_dagster.errors import AccessDeniedError, DefinitionError, SnapshotError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.audit_report import KINDS
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.pipeline import (
    AuditSettings,
    apply_transform,
    plan_audit,
    read_dataset,
    want_snapshot,
)
from datazone_dagster.sources import DynamoDBSource
from tests.audit.worlds import (
    ITEMS,
    audit,
    copied,
    handed_over,
    name,
    result_of,
)
from tests.snapshot.flow import SOURCE, World, flow, item, key, small_flow
from tests.snapshot.positions import before_positions_are_read


@pytest.fixture(scope="module")
def every_mode(tmp_path_factory: pytest.TempPathFactory) -> World:
    return handed_over(tmp_path_factory.mktemp("every") / "lake", flow)


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> World:
    return handed_over(tmp_path_factory.mktemp("merged") / "lake", small_flow)


@pytest.fixture
def world(merged: World, tmp_path: Path) -> World:
    return copied(merged, tmp_path / "lake")


def delta(world: World, dataset_id: str) -> DeltaTable:
    return DeltaTable(world.layout.dataset(dataset_id))


def add_row(world: World, dataset_id: str, key_text: str | None) -> None:
    """Write a row that no item has, as a program would that does not know better."""
    row = read_dataset(world.layout, dataset_id).slice(0, 1)
    at = row.column_names.index("_dz_key")
    row = row.set_column(at, "_dz_key", pa.array([key_text], pa.string()))
    write_deltalake(world.layout.dataset(dataset_id), row, mode="append")


def plant_six(world: World, dataset_id: str) -> None:
    """Plant two missing rows, three stale ones and an extra one."""
    delta(world, dataset_id).delete("id in ('k2', 'k3')")
    delta(world, dataset_id).update({"total": "'999'"}, predicate="id in ('k4', 'k5', 'k9')")
    add_row(world, dataset_id, name(777))


def test_datasets_that_show_the_table_are_clean(every_mode: World, tmp_path: Path) -> None:
    report = audit(copied(every_mode, tmp_path / "lake"))
    assert report.is_clean
    assert {one.dataset_id: (one.items, one.rows) for one in report.datasets} == {
        "current": (ITEMS - 1, ITEMS - 1),
        "soft": (ITEMS - 1, ITEMS - 1),
        "past": (ITEMS - 1, ITEMS - 1),
    }
    assert list(report.plan.skipped) == ["events"]
    assert report.read_units >= ITEMS - 1
    assert report.proven_at is not None


def test_rows_that_others_deleted_changed_or_added_are_found(
    every_mode: World, tmp_path: Path
) -> None:
    """Nothing else would notice them until their keys change."""
    world = copied(every_mode, tmp_path / "lake")
    ids = ("current", "soft", "past")
    for dataset_id in ids:
        plant_six(world, dataset_id)
    report = audit(world)
    assert report.result == "differences"
    assert tuple(one.dataset_id for one in report.datasets) == ids
    for one in report.datasets:
        assert dict(one.differences) == {"missing": 2, "stale": 3, "extra": 1}, one.dataset_id
        assert set(one.examples["missing"]) == {name(2), name(3)}
        assert set(one.examples["stale"]) == {name(4), name(5), name(9)}
        assert one.examples["extra"] == (name(777),)
        assert not one.undecided


def test_live_traffic_raises_no_alarm_and_hides_nothing(world: World) -> None:
    plant_six(world, "current")
    clock = iter(range(1, 10_000))

    def write(*_: object) -> None:
        number = next(clock)
        world.stream.put(item(10 + number % 20, 100 + number))
        world.stream.put(item(500 + number, number))
        if number % 2:
            world.stream.delete(key(10 + number % 7))

    world.table.fault = write  # between any two pages and looks, undrained
    report = audit(world, meanwhile=write)
    one = result_of(report, "current")
    assert dict(one.differences) == {"missing": 2, "stale": 3, "extra": 1}
    assert one.looked_again > 6
    assert one.changed == one.looked_again - 6 - sum(one.undecided.values())
    assert set(one.undecided) <= {KEEPS_CHANGING}


def test_what_lands_while_the_audit_reads_the_positions_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that pass the look belong to a head that has the changes before it."""
    world.stream.put(item(5, 1234))

    def land() -> None:
        world.clock.advance(timedelta(minutes=1))
        world.drain()

    before_positions_are_read(monkeypatch, land)
    report = audit(world)
    assert report.is_clean
    assert result_of(report, "current").changed == 1


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={"current": Output(Dataset(id="current", buckets=2))},
)
def in_buckets(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")


class Buckets(World):
    """A world whose dataset has a run for each of two buckets."""

    def apply(self) -> None:
        for bucket in key_buckets(2):
            self.apply_bucket(bucket)

    def apply_bucket(self, bucket: KeyBucket) -> None:
        apply_transform(self.flow, self.layout, clock=self.clock, bucket=bucket)


def test_buckets_that_are_not_equally_far_raise_no_alarm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = handed_over(tmp_path / "lake", in_buckets, Buckets)
    assert isinstance(world, Buckets)
    first, _ = key_buckets(2)
    look_again, decide = SecondLook.run, SecondLook._decided
    totals = iter([1000, 2000, 3000])

    def write() -> None:
        total = next(totals)
        for number in range(2, 10):
            world.stream.put(item(number, total))

    def after_the_scan_was_applied(*given: Any) -> Any:
        world.drain()
        world.apply()
        return look_again(*given)

    def while_one_bucket_goes_on(*given: Any) -> Any:
        if world.rows()["k2"] == "1000":
            write()
            world.drain()
            world.apply_bucket(first)
        return decide(*given)

    write()
    monkeypatch.setattr(SecondLook, "run", after_the_scan_was_applied)
    monkeypatch.setattr(SecondLook, "_decided", while_one_bucket_goes_on)
    report = audit(world)
    assert report.is_clean
    assert result_of(report, "current").changed == 8


def test_a_key_that_changes_all_the_time_is_known_by_its_newest_change(world: World) -> None:
    totals = iter(range(1000, 10_000))

    def write(*_: object) -> None:
        world.stream.put(item(5, next(totals)))

    world.stream.put(item(5, 1))
    world.table.fault = write
    report = audit(world, meanwhile=write)
    assert report.is_clean
    assert result_of(report, "current").changed == 1


def test_without_a_drain_nothing_is_decided(world: World) -> None:
    delta(world, "current").delete("id = 'k2'")
    report = audit(world, drains=False, wait_seconds=30)
    one = result_of(report, "current")
    assert not one.has_differences
    assert dict(one.undecided) == {NOT_DRAINED: 1}
    assert report.result == "undecided"


def test_an_idle_stream_is_asked_for_its_position(world: World) -> None:
    """An idle drain records it every ten minutes only."""
    delta(world, "current").delete("id = 'k2'")
    began = world.clock.now
    report = audit(world)
    assert dict(result_of(report, "current").differences) == {"missing": 1}
    assert (world.clock.now - began).total_seconds() < 60
    log = DeltaTable(world.layout.change_log(SOURCE.name))
    assert AWAITED_PROPERTY in log.metadata().configuration


def test_rows_without_a_key_or_with_a_strange_one_are_extra(world: World) -> None:
    for key_text in (None, "nonsense", "2:xxS1:a"):
        add_row(world, "current", key_text)
    one = result_of(audit(world), "current")
    assert dict(one.differences) == {"extra": 3}
    assert set(one.examples["extra"]) == {NO_KEY, "nonsense", "2:xxS1:a"}


def test_a_sample_decides_what_it_has_drawn(world: World) -> None:
    row = read_dataset(world.layout, "current").slice(0, 1)
    at = row.column_names.index("_dz_key")
    extra = [
        row.set_column(at, "_dz_key", pa.array([name(number)], pa.string()))
        for number in range(1000, 1060)
    ]
    write_deltalake(world.layout.dataset("current"), pa.concat_tables(extra), mode="append")
    delta(world, "current").update({"total": "'999'"}, predicate="id like 'k%'")
    reports = [audit(world, sample=0.5, seed=seed) for seed in (1, 1, 2)]
    ones = [result_of(report, "current") for report in reports]
    assert ones[0] == ones[1]
    assert ones[0] != ones[2]
    for one, report in zip(ones, reports, strict=True):
        assert report.plan.segments * 2 == report.plan.segments_total
        assert 5 < one.items < ITEMS - 5
        assert one.differences["stale"] >= one.items, "each scanned one, and drawn ones"
        assert 10 < one.differences["extra"] < 50
        assert "missing" not in one.differences


def test_what_it_refuses(world: World) -> None:
    with pytest.raises(DefinitionError, match="writes a dataset 'nobody'"):
        audit(world, dataset_ids=("nobody",))
    with pytest.raises(DefinitionError, match="out of range"):
        AuditSettings(sample=0)
    masked = DynamoDBSource("orders", region="eu-west-1", mask={"id": "hash"})
    with pytest.raises(SnapshotError, match="mask hashes the key 'id'"):
        audit(world, source=masked)
    report = audit(world, dataset_ids=("events",))
    assert (report.result, list(report.plan.skipped)) == ("undecided", ["events"])
    want_snapshot(SOURCE.name, world.layout, "resync")
    with pytest.raises(SnapshotError, match="not handed over yet"):
        audit(world)


def test_a_table_that_may_not_be_scanned(world: World) -> None:
    def deny(operation: str, number: int) -> None:
        raise AccessDeniedError(f"no {operation}")

    world.table.fault = deny
    with pytest.raises(AccessDeniedError, match="no Scan"):
        audit(world)


def test_the_plan_is_made_from_the_description_alone(world: World) -> None:
    calls = dict(world.table.calls)
    plan = plan_audit(
        SOURCE, (small_flow,), world.layout, world.table, settings=AuditSettings(sample=0.1)
    )
    assert dict(world.table.calls) == calls
    assert plan.datasets == ("current",)
    assert (plan.segments, plan.segments_total) == (10, 100)
    assert 0 < plan.read_units < plan.item_count
    assert plan.price > 0
    assert set(plan.to_json()) >= {"read_units", "price", "seconds", "skipped"}


def test_a_report_in_json_escapes_its_keys(world: World) -> None:
    add_row(world, "current", "\x1b[2J")
    told: dict[str, Any] = audit(world).to_json()
    (one,) = told["datasets"]
    assert one["differences"] == {kind: int(kind == "extra") for kind in KINDS}
    assert one["examples"] == {"extra": ["\\x1b[2J"]}
    assert told["result"] == "differences"
