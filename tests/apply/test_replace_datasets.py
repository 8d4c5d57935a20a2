"""A source without a stream: each run replaces the datasets by a scan of the table."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import (
    AccessDeniedError,
    ConcurrentWriterError,
    DefinitionError,
    SourceMismatchError,
    StorageError,
    TransformError,
)
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.report import ApplyReport
from datazone_dagster.pipeline import (
    ApplySettings,
    apply_transform,
    datasets_of_source,
    drain_once,
    drain_tick,
    last_scan,
    read_dataset,
    rebuild_dataset,
    records_waiting,
    redrive_dataset,
    replace_from_table,
)
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, FixedClock, ScriptedStream, crash_at, run_transform
from tests.examples import examples
from tests.snapshot.flow import item, key
from tests.snapshot.scripted_table import ScriptedTable

SOURCE = DynamoDBSource("orders", stream_enabled=False)


def selected(orders: Frame) -> Any:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")


def typed(orders: Frame) -> Any:
    return orders.items()


def flow_of(
    function: Callable[..., Any] = selected,
    source: DynamoDBSource = SOURCE,
    on_error: Any = "fail",
    **dataset: Any,
) -> Transform:
    return transform(
        name="flow",
        input_mapping={"orders": Input(Stream(source=source))},
        output_mapping={"current": Output(Dataset("current", **dataset))},
        on_error=on_error,
    )(function)


class World:
    """A table, and a lakehouse that copies it run by run."""

    def __init__(self, root: Path, flow: Transform | None = None) -> None:
        self.root = root
        self.layout = Layout(str(root))
        self.flow = flow or flow_of()
        self.clock = FixedClock()
        self.table = ScriptedTable(ScriptedStream("orders", clock=self.clock), self.clock)

    def put(self, *items: dict[str, Any]) -> None:
        for one in items:
            self.table.put_unseen(one)

    def run(self, **options: Any) -> ApplyReport:
        self.clock.advance(timedelta(seconds=1))
        reports = replace_from_table(
            self.flow, self.table, self.layout, clock=self.clock, **options
        )
        return next(iter(reports.values()))

    def rows(self) -> list[dict[str, Any]]:
        table = read_dataset(self.layout, "current")
        shown = [name for name in table.column_names if not name.startswith("_dz_")]
        return sorted(table.select(shown).to_pylist(), key=lambda row: str(row["id"]))

    def folders(self) -> set[str]:
        return {one.name for one in self.root.iterdir()} if self.root.exists() else set()

    def leftovers(self) -> list[Path]:
        return [one for one in self.root.glob("_rebuild/**/*") if one.is_file()]


def test_each_run_replaces_the_dataset_by_the_table(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(*(item(number, number) for number in range(7)))
    report = world.run()
    assert world.rows() == [{"id": f"k{one}", "total": str(one)} for one in range(7)]
    assert report.scan is not None
    assert (report.row_count, report.scan.items, report.scan.read_units > 0) == (7, 7, True)
    world.table.delete_unseen(key(3))
    world.put(item(1, 100), item(9, 9))
    report = world.run()
    shown = {row["id"]: row["total"] for row in world.rows()}
    assert shown == {"k0": "0", "k1": "100", "k2": "2", "k4": "4", "k5": "5", "k6": "6", "k9": "9"}
    assert report.row_count == 7
    assert last_scan(world.layout, "current", "orders") == report.scan


def test_it_leaves_no_change_log_no_checkpoint_and_no_files_of_the_run(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(item(1))
    world.run()
    world.run()
    assert not {"_changelog", "_checkpoints", "_tombstones"} & world.folders()
    assert world.leftovers() == []


@given(
    runs=st.lists(
        st.dictionaries(st.integers(0, 9), st.integers(-3, 3), max_size=8), min_size=1, max_size=3
    ),
    chunk_bytes=st.sampled_from([1, None]),
)
@settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_after_every_run_the_dataset_equals_the_table(
    tmp_path_factory: pytest.TempPathFactory,
    runs: list[dict[int, int]],
    chunk_bytes: int | None,
) -> None:
    world = World(tmp_path_factory.mktemp("lake"))
    for items in runs:
        world.table.stream.items.clear()
        world.put(*(item(number, total) for number, total in items.items()))
        world.run(settings=ApplySettings(chunk_bytes=chunk_bytes))
        wanted = [{"id": f"k{one}", "total": str(total)} for one, total in sorted(items.items())]
        assert world.rows() == wanted


def test_items_gives_typed_columns(tmp_path: Path) -> None:
    world = World(tmp_path, flow_of(typed))
    world.put(item(1, 5), {"id": {"S": "k2"}, "paid": {"BOOL": True}})
    world.run()
    assert world.rows() == [
        {"id": "k1", "total": 5, "paid": None},
        {"id": "k2", "total": None, "paid": True},
    ]


def test_an_empty_table_gives_an_empty_dataset_with_its_columns(tmp_path: Path) -> None:
    world = World(tmp_path)
    report = world.run()
    table = read_dataset(world.layout, "current")
    assert (table.num_rows, table.column_names[:2]) == (0, ["id", "total"])
    assert report.scan is not None
    assert (report.row_count, report.scan.items) == (0, 0)
    world.put(item(1))
    world.run()
    assert len(world.rows()) == 1


def test_a_table_that_was_emptied_leaves_the_columns(tmp_path: Path) -> None:
    world = World(tmp_path, flow_of(typed))
    world.put(item(1))
    world.run()
    world.table.delete_unseen(key(1))
    world.run()
    table = read_dataset(world.layout, "current")
    assert (table.num_rows, {"id", "total"} <= set(table.column_names)) == (0, True)


def test_masks_are_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SALT_VARIABLE, "a salt of the tests")
    source = DynamoDBSource("orders", stream_enabled=False, mask={"total": "null", "id": "hash"})
    world = World(tmp_path, flow_of(source=source))
    world.put(*(item(number) for number in range(5)))
    world.run()
    assert len({row["id"] for row in world.rows()}) == 5
    assert {row["total"] for row in world.rows()} == {None}
    assert not any(row["id"].startswith("k") for row in world.rows())


def without_debts(orders: Frame) -> pa.Table:
    rows: pa.Table = selected(orders).arrow()
    for total in rows["total"].to_pylist():
        if int(total) < 0:
            raise ValueError(f"total {total}")
    return rows


def test_the_quarantine_has_what_the_last_run_could_not_take(tmp_path: Path) -> None:
    world = World(tmp_path, flow_of(without_debts, on_error="quarantine"))
    world.put(item(1, 1), item(2, -2), item(3, -3))
    assert world.run().quarantined == 2
    assert [row["id"] for row in world.rows()] == ["k1"]
    assert records_waiting("orders", "current", world.layout) == 2
    world.put(item(2, 2))
    assert world.run().quarantined == 1
    assert [row["id"] for row in world.rows()] == ["k1", "k2"]
    assert records_waiting("orders", "current", world.layout) == 1


def test_a_function_that_fails_leaves_the_old_rows(tmp_path: Path) -> None:
    world = World(tmp_path, flow_of(without_debts))
    world.put(item(1, 1))
    world.run()
    world.put(item(2, -2))
    with pytest.raises(TransformError, match="total -2"):
        world.run()
    assert [row["id"] for row in world.rows()] == ["k1"]
    assert world.leftovers() == []


def test_a_missing_permission_is_named(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(item(1))
    world.run()

    def deny(operation: str, number: int) -> None:
        raise AccessDeniedError(f"dynamodb:{operation} is missing.")

    world.table.fault = deny
    world.put(item(2))
    with pytest.raises(AccessDeniedError, match="dynamodb:Scan"):
        world.run()
    assert [row["id"] for row in world.rows()] == ["k1"]
    assert world.leftovers() == []


@pytest.mark.parametrize(
    "point",
    [
        crash_points.AFTER_SCAN_COMMIT,
        crash_points.AFTER_DATASET_COMMIT,
        crash_points.BEFORE_SWAP,
        crash_points.AFTER_SWAP,
    ],
)
def test_a_killed_run_leaves_the_old_rows_or_the_new_ones(
    tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.put(item(1, 1))
    world.run()
    world.put(item(2, 2))
    with monkeypatch.context() as patched:
        # A killed process removes nothing.
        patched.setattr(TableStore, "delete_all", lambda self: None)
        with pytest.raises(Crash), crash_at(point):
            world.run()
    swapped = point == crash_points.AFTER_SWAP
    assert [row["id"] for row in world.rows()] == (["k1", "k2"] if swapped else ["k1"])
    assert world.leftovers()
    world.put(item(3, 3))
    world.run()
    assert [row["id"] for row in world.rows()] == ["k1", "k2", "k3"]
    assert world.leftovers() == []


def test_of_two_runs_at_once_one_loses(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(item(1, 1))
    world.run()

    def other_run(operation: str, number: int) -> None:
        world.table.fault = lambda operation, number: None
        world.put(item(2, 2))
        world.run()

    world.table.fault = other_run
    with pytest.raises(ConcurrentWriterError, match="another run has replaced it"):
        world.run()
    assert [row["id"] for row in world.rows()] == ["k1", "k2"]


def test_runs_do_not_gather_properties(tmp_path: Path) -> None:
    world = World(tmp_path, flow_of(typed))
    counts = []
    for number in range(4):
        world.put(item(number))
        world.run()
        counts.append(len(DeltaTable(world.layout.dataset("current")).metadata().configuration))
    assert counts[3] == counts[2] == counts[1]
    assert len(world.rows()) == 4


def test_repairs_from_changes_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(item(1))
    world.run()
    for repair in (rebuild_dataset, redrive_dataset):
        with pytest.raises(DefinitionError, match="apply_flow"):
            repair(world.flow, "current", world.layout)
    assert len(world.rows()) == 1


def test_rows_of_a_stream_and_of_a_scan_never_mix(tmp_path: Path) -> None:
    world = World(tmp_path)
    streaming = flow_of(source=DynamoDBSource("orders"))
    world.table.stream.put(item(1, 1))
    drain_once(streaming.source, world.table.stream, world.layout)
    apply_transform(streaming, world.layout)
    with pytest.raises(StorageError, match="made from the changes of a stream"):
        world.run()
    assert [row["id"] for row in world.rows()] == ["k1"]

    other = World(tmp_path / "other")
    other.put(item(1, 1))
    other.run()
    assert datasets_of_source("orders", other.layout) == {}
    other.table.stream.put(item(2, 2))
    drain_once(streaming.source, other.table.stream, other.layout)
    with pytest.raises(StorageError, match="made by scans"):
        apply_transform(streaming, other.layout)
    assert [row["id"] for row in other.rows()] == ["k1"]


def test_the_rows_of_another_table_are_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    world.put(item(1))
    world.run()
    monkeypatch.setattr(
        "tests.snapshot.scripted_table.table_arn",
        lambda name: f"arn:aws:dynamodb:eu-west-1:111111111111:table/{name}",
    )
    with pytest.raises(SourceMismatchError, match="111111111111"):
        world.run()


@pytest.mark.parametrize(
    ("settings_of_dataset", "word"),
    [
        ({"mode": "append"}, "mode='append'"),
        ({"mode": "history"}, "mode='history'"),
        ({"deletes": "soft"}, "deletes='soft'"),
    ],
)
def test_modes_that_need_changes_are_refused(
    settings_of_dataset: dict[str, Any], word: str
) -> None:
    with pytest.raises(DefinitionError, match=word):
        flow_of(**settings_of_dataset)


def test_a_lookup_works_as_with_a_stream(tmp_path: Path) -> None:
    names = World(tmp_path)
    names.put(item(1, 1))
    names.run()

    def joined(orders: Frame, current: Any) -> Any:
        known = {row["id"] for row in current.arrow().to_pylist()}
        rows = selected(orders).arrow()
        return rows.append_column("known", pa.array([one.as_py() in known for one in rows["id"]]))

    flow = transform(
        name="joined",
        input_mapping={
            "orders": Input(Stream(source=SOURCE)),
            "current": Input(Dataset("current")),
        },
        output_mapping={"joined": Output(Dataset("joined"))},
    )(joined)
    names.put(item(2, 2))
    replace_from_table(flow, names.table, names.layout)
    rows = read_dataset(names.layout, "joined").to_pylist()
    assert {row["id"]: row["known"] for row in rows} == {"k1": True, "k2": False}


def test_what_reads_changes_is_refused_with_the_call_that_does_it(tmp_path: Path) -> None:
    flow, stream, layout = flow_of(typed), ScriptedStream(), Layout(str(tmp_path))
    calls: dict[str, Callable[[], object]] = {
        "drain_once": lambda: drain_once(SOURCE, stream, layout),
        "drain_tick": lambda: drain_tick(SOURCE, stream, layout),
        "apply_transform": lambda: apply_transform(flow, layout),
        "run_transform": lambda: run_transform(flow, stream, tmp_path),
    }
    for name, call in calls.items():
        with pytest.raises(DefinitionError, match=f"^{name} reads .*replace_from_table"):
            call()
    assert list(tmp_path.iterdir()) == []


def test_frozen_columns_stay_as_readers_know_them(tmp_path: Path) -> None:
    world = World(tmp_path, flow_of(typed, schema_policy="freeze"))
    world.put(item(1))
    world.run()
    world.put({"id": {"S": "k2"}, "extra": {"S": "new"}})
    report = world.run()
    assert "extra" not in read_dataset(world.layout, "current").column_names
    assert [name for name, _, _ in report.unexpected_columns] == ["extra"]
