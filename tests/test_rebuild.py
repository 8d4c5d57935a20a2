"""A rebuilt dataset is the one that its function would have made from the start."""

from __future__ import annotations

import copy
import shutil
import signal
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply.rebuild import Rebuild, RebuildReport
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.dataset import swap
from datazone_dagster.dataset.tombstones import Tombstones
from datazone_dagster.delta import open_table
from datazone_dagster.delta.commit import set_properties
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.table import Table
from datazone_dagster.errors import (
    ConcurrentWriterError,
    ExpressionError,
    SchemaChangeError,
    StorageError,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import ApplySettings, apply_transform, drain_once, read_dataset
from datazone_dagster.process import crash_points
from datazone_dagster.rows.merge_batch import KEYED_CHANGES_SCHEMA
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, FixedClock, ScriptedStream, at_point, crash_at
from tests.commands.running import run_command

SOURCE = DynamoDBSource("orders")
EVERY_BATCH = ApplySettings(chunk_bytes=1)

Function = Callable[[Any], object]


def as_number(changes: Any) -> object:
    return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N::bigint as n")


def as_text(changes: Any) -> object:
    return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N as n")


def flow_of(function: Function, **dataset: Any) -> Transform:
    """The function into `d`, and into `other`, which is never rebuilt."""

    def both(changes: Any) -> dict[str, object]:
        return {"d": function(changes), "other": as_number(changes)}

    return transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d", **dataset)), "other": Output(Dataset("other"))},
    )(both)


class World:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.layout = Layout(str(root / "lake"))
        self.clock = FixedClock()
        self.stream = ScriptedStream("orders", clock=self.clock)

    def write_some(self, start: int = 0) -> None:
        """Three batches: new, changed, deleted and returning items."""
        for batch in range(start, start + 3):
            for number in range(4):
                self.put(f"k{number}", n=batch * 10 + number)
            self.put(f"only{batch}", n=batch)
            self.stream.delete({"id": {"S": f"k{batch % 4}"}})
            self.drain()

    def put(self, key: str, n: int) -> None:
        self.stream.put({"id": {"S": key}, "n": {"N": str(n)}})

    def drain(self) -> None:
        drain_once(SOURCE, self.stream, self.layout, clock=self.clock)

    def apply(self, function: Function, **dataset: Any) -> None:
        flow = flow_of(function, **dataset)
        apply_transform(flow, self.layout, settings=EVERY_BATCH, clock=self.clock)

    def rebuild(self, function: Function, **dataset: Any) -> RebuildReport:
        flow = flow_of(function, **dataset)
        return Rebuild(
            flow, flow.outputs["d"], self.layout, settings=EVERY_BATCH, clock=self.clock
        ).run()

    def rows(self, dataset: str = "d", layout: Layout | None = None) -> list[Any]:
        found = read_dataset(layout or self.layout, dataset)
        return sorted(found.to_pylist(), key=repr)

    def fresh(self, function: Function, **dataset: Any) -> list[Any]:
        """What the function makes of the same change log from the start."""
        flow = flow_of(function, **dataset)
        again = Layout(str(self.root / "fresh"))
        log = Path(self.layout.change_log("orders"))
        (self.root / "fresh" / "_changelog").mkdir(parents=True)
        (self.root / "fresh" / "_changelog" / "orders").symlink_to(log)
        apply_transform(flow, again, clock=self.clock)
        return self.rows(layout=again)

    def table(self, dataset: str = "d") -> DeltaTable:
        return DeltaTable(self.layout.dataset(dataset))

    def position(self, dataset: str = "d") -> int:
        return self.table(dataset).transaction_version("apply/orders") or 0


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("written"))
    world.write_some()
    return world


@pytest.fixture
def world(tmp_path: Path, written: World) -> World:
    """A copy of a world with three batches in its change log."""
    shutil.copytree(written.root / "lake", tmp_path / "lake")
    world = World(tmp_path)
    world.clock, world.stream = copy.deepcopy((written.clock, written.stream))
    return world


@pytest.mark.parametrize(
    "dataset",
    [
        {},
        {"mode": "append"},
        {"mode": "history"},
        {"deletes": "soft"},
        {"partition_by": "id"},
        {"deletion_vectors": True},
    ],
    ids=repr,
)
def test_it_is_what_the_function_makes_from_the_start(
    world: World, dataset: dict[str, Any]
) -> None:
    world.apply(as_number, **{**dataset, "partition_by": ()})
    other = world.table("other").version()
    world.write_some(3)
    with pytest.raises(SchemaChangeError, match="rebuild d"):
        world.apply(as_text, **dataset)
    world.rebuild(as_text, **dataset)

    assert world.rows() == world.fresh(as_text, **dataset)
    assert world.position() == 6
    assert world.table("other").version() == other
    assert list(world.table().metadata().partition_columns) == [
        name for name in [dataset.get("partition_by")] if name
    ]
    world.put("later", n=1)
    world.stream.delete({"id": {"S": "only2"}})
    world.drain()
    world.apply(as_text, **dataset)
    assert any(row["id"] == "later" and row["n"] == "1" for row in world.rows())
    assert not (world.root / "lake" / "_rebuild" / "d").exists()


def test_a_rebuild_makes_no_other_output_whose_id_is_part_of_its_own(world: World) -> None:
    def both(changes: Any) -> dict[str, object]:
        return {"d": as_number(changes), "all_d": as_number(changes)}

    flow = transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d")), "all_d": Output(Dataset("all_d"))},
    )(both)
    apply_transform(flow, world.layout, clock=world.clock)
    made: list[str] = []

    def look() -> None:
        made.extend(one.name for one in (world.root / "lake" / "_rebuild" / "all_d").glob("*/*d"))

    with at_point(crash_points.BEFORE_SWAP, look):
        Rebuild(
            flow,
            flow.outputs["all_d"],
            world.layout,
            settings=EVERY_BATCH,
            clock=world.clock,
        ).run()
    assert made == ["all_d"]


def test_a_changed_partition_by_is_told_once_a_run_until_the_rebuild(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.apply(as_number)
    assert not caplog.records
    world.write_some(3)
    flow = flow_of(as_number, partition_by="id")
    reports = apply_transform(flow, world.layout, settings=EVERY_BATCH, clock=world.clock)
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "partition_by=['id']" in told
    assert "was created with []" in told
    assert "`datazone-dagster rebuild d`" in told
    assert "No row is missing" in told
    assert (reports["d"].setting_ignored, reports["other"].setting_ignored) == (told, None)
    assert reports["d"].chunks == 3
    assert world.rows() == world.fresh(as_number)
    caplog.clear()
    world.rebuild(as_number, partition_by="id")
    world.apply(as_number, partition_by="id")
    assert not caplog.records


def test_a_rebuild_takes_the_partitions_away(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.apply(as_number, partition_by="id")
    world.rebuild(as_number)
    assert world.table().metadata().partition_columns == []
    world.write_some(3)
    world.apply(as_number)
    assert not caplog.records
    assert world.rows() == world.fresh(as_number)


LONG = pytest.mark.faults
TO_ANOTHER = [("merge", "history"), ("history", "append"), ("append", "merge")]
BACK = [pytest.param(after, before, marks=LONG) for before, after in TO_ANOTHER]


@pytest.mark.parametrize(("before", "after"), [*TO_ANOTHER, *BACK])
def test_it_is_the_way_to_another_mode(world: World, before: str, after: str) -> None:
    world.apply(as_number, mode=before)
    world.rebuild(as_number, mode=after)
    assert world.rows() == world.fresh(as_number, mode=after)
    world.put("later", n=1)
    world.drain()
    world.apply(as_number, mode=after)
    assert [row["n"] for row in world.rows() if row["id"] == "later"] == [1]


def test_readers_keep_what_they_read_and_older_versions_stay(world: World) -> None:
    world.apply(as_number)
    reader = world.table()
    before = world.rows()
    world.rebuild(as_text)
    assert sorted(reader.to_pyarrow_table().to_pylist(), key=repr) == before
    old = DeltaTable(world.layout.dataset("d"), version=reader.version())
    assert sorted(old.to_pyarrow_table().to_pylist(), key=repr) == before


def test_deleted_keys_stay_deleted_although_their_tombstones_had_gone(world: World) -> None:
    world.apply(as_number)
    world.clock.advance(timedelta(days=30))
    tombstones = Path(world.layout.tombstones("d"))
    tombstones.rename(tombstones.with_name("gone"))
    world.rebuild(as_text)
    gone = {"k0", "k1", "k2", "k3"} - {row["id"] for row in world.rows()}
    assert gone
    old = pa.Table.from_pylist(
        [
            {"_dz_key": f"2:idS{len(key)}:{key}", "_dz_version": "0" * 48, "cause": None}
            for key in gone
        ],
        schema=KEYED_CHANGES_SCHEMA,
    )
    assert len(Tombstones(world.layout, "d", SOURCE.name).superseded(old)) == len(gone)


def test_the_types_of_items_can_be_declared_anew(world: World) -> None:
    def items(changes: Any) -> object:
        return changes.items()

    def declared(changes: Any) -> object:
        return changes.items(types={"n": "int"})

    world.apply(items)
    world.put("more", n=1)
    world.drain()
    with pytest.raises(ExpressionError, match="already"):
        world.apply(declared)
    world.rebuild(declared)
    assert pa.schema(world.table().schema().to_arrow()).field("n").type == pa.int32()
    world.put("more", n=2)
    world.drain()
    world.apply(declared)
    assert {row["id"]: row["n"] for row in world.rows()}["more"] == 2


@pytest.mark.parametrize(
    ("point", "nth"),
    [
        ("before dataset commit", 2),
        ("after dataset commit", 2),
        ("after tombstones", 2),
        ("before swap", 1),
        ("after swap", 1),
    ],
)
def test_killed_anywhere_it_can_be_run_again(world: World, point: str, nth: int) -> None:
    world.apply(as_number)
    before, other = world.rows(), world.table("other").version()
    with pytest.raises(Crash), crash_at(point, nth):
        world.rebuild(as_text)
    if point != "after swap":
        assert world.rows() == before
        world.apply(as_number)
    world.rebuild(as_text)
    assert world.rows() == world.fresh(as_text)
    assert world.position() == 3
    assert world.table("other").version() == other
    assert not (world.root / "lake" / "_rebuild" / "d").exists()


@pytest.mark.parametrize(
    ("point", "nth"), [(crash_points.BEFORE_SWAP, 1), (crash_points.AFTER_DATASET_COMMIT, 3)]
)
def test_a_run_in_the_last_moment_is_taken_in(world: World, point: str, nth: int) -> None:
    world.apply(as_number)

    def run() -> None:
        world.put("late", n=99)
        world.drain()
        world.apply(as_number)

    with at_point(point, run, nth):
        report = world.rebuild(as_text)
    assert report.attempts == 2
    assert {row["id"]: row["n"] for row in world.rows()}["late"] == "99"
    assert world.rows() == world.fresh(as_text)


def test_a_run_that_the_rebuilds_own_commit_passes_is_taken_in(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The properties of the new generation are a commit, which moves the handle behind the run."""
    world.apply(as_number)
    copy_properties = swap._copy_properties

    def overtaken(made: Table, table: Table, generation: int, scan: None) -> None:
        monkeypatch.setattr(swap, "_copy_properties", copy_properties)
        world.put("late", n=99)
        world.drain()
        world.apply(as_number)
        table.refresh()
        set_properties(table, {"some.property": "1"})

    monkeypatch.setattr(swap, "_copy_properties", overtaken)
    report = world.rebuild(as_text)
    assert report.attempts == 2
    assert world.rows() == world.fresh(as_text)


def test_a_run_that_was_about_to_commit_gives_way(world: World) -> None:
    world.apply(as_number)
    world.put("late", n=99)
    world.drain()
    with at_point("before dataset commit", lambda: world.rebuild(as_number)):
        world.apply(as_number)
    assert world.position() == 4
    assert world.rows() == world.fresh(as_number)


@pytest.mark.parametrize("store_deletes", [True, False])
@pytest.mark.parametrize("point", [crash_points.BEFORE_DATASET_COMMIT, crash_points.BEFORE_SWAP])
def test_of_two_rebuilds_the_second_gives_way(
    world: World, point: str, store_deletes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.apply(as_number)
    if not store_deletes:
        monkeypatch.setattr(TableStore, "delete_all", lambda store: None)
    with (
        pytest.raises(ConcurrentWriterError, match="another rebuild"),
        at_point(point, lambda: world.rebuild(as_text)),
    ):
        world.rebuild(as_number)
    assert world.rows() == world.fresh(as_text)


def test_what_the_new_function_can_t_take_goes_to_the_quarantine(world: World) -> None:
    schema = pa.schema([("id", pa.string()), ("n", pa.int64())])

    def halves(changes: Any) -> object:
        return changes.select(
            "dynamodb.Keys.id.S as id", "(dynamodb.NewImage.n.N::decimal(18,2) / 2)::double as n"
        )

    world.apply(as_number)
    report = world.rebuild(halves, schema=schema, schema_policy="quarantine")
    table = open_table(world.layout.quarantine("d"), {}, "quarantine")
    assert table is not None
    reasons = table.to_pyarrow_table()["reason"].to_pylist()
    assert set(reasons) == {
        "the contract refuses it: column 'n' holds a value that is no int64",
    }
    assert len(reasons) == report.applied.quarantined > 1


def test_a_change_log_that_forgot_can_t_rebuild(world: World) -> None:
    world.apply(as_number)
    log = ChangeLog(world.layout, "orders").open()
    assert log is not None
    assert log.truncate(2, world.clock() + timedelta(days=1)) > 0
    before = world.rows()
    with pytest.raises(
        StorageError,
        match=r"1 to 2 were removed.* still has the 6 changes of batches 3 to 3, made.*would lack",
    ):
        world.rebuild(as_text)
    assert world.rows() == before


def truncate(world: World, batch: int) -> None:
    log = ChangeLog(world.layout, "orders").open()
    assert log is not None
    assert log.truncate(batch, world.clock() + timedelta(days=1)) > 0


def test_what_is_forgotten_while_it_is_read_is_still_read(world: World) -> None:
    world.apply(as_number)
    expected = {row["id"]: str(row["n"]) for row in world.rows()}
    with at_point(crash_points.BEFORE_DATASET_COMMIT, lambda: truncate(world, 3)):
        world.rebuild(as_text)
    assert {row["id"]: row["n"] for row in world.rows()} == expected


def test_what_is_forgotten_before_it_is_read_ends_the_rebuild(world: World) -> None:
    world.apply(as_number)

    def run() -> None:
        world.put("late", n=99)
        world.drain()
        world.apply(as_number)
        truncate(world, 4)

    with (
        pytest.raises(StorageError, match="batches 1 to 4 were removed"),
        at_point(crash_points.AFTER_DATASET_COMMIT, run, 3),
    ):
        world.rebuild(as_text)
    assert {row["id"]: row["n"] for row in world.rows()}["late"] == 99


def test_there_has_to_be_something_to_rebuild(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(StorageError, match="has no table"):
        world.rebuild(as_text)


PROJECT = """
from datazone_dagster import *
from datazone_dagster.sources import DynamoDBSource

@transform(
    input_mapping={"changes": Input(Stream(source=DynamoDBSource("orders")))},
    output_mapping={"rows": Output(Dataset("d"))},
)
def flow(changes):
    return changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N as n")
"""


def test_the_command_killed_in_the_middle_and_run_again(world: World) -> None:
    world.apply(as_number)
    before = world.rows()
    (world.root / "definitions.py").write_text(PROJECT, "utf-8")
    command = ("rebuild", "d", "--lakehouse", world.layout.uri)
    for point in ("before dataset commit", crash_points.BEFORE_SWAP):
        killed = run_command(*command, cwd=world.root, environment={"DATAZONE_CRASH_AT": point})
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert world.rows() == before
    assert len(list((world.root / "lake" / "_rebuild" / "d").iterdir())) == 2

    done = run_command(*command, cwd=world.root)
    assert done.returncode == 0, done.stderr
    assert "Dataset d is rebuilt (number 1)" in done.stdout
    assert world.rows() == world.fresh(as_text)
    assert not (world.root / "lake" / "_rebuild" / "d").exists()

    unknown = run_command("rebuild", "nonsense", cwd=world.root)
    assert unknown.returncode == 1
    assert "Datasets of this project: d" in unknown.stderr


@pytest.mark.parametrize("sign", ["#", "?"])
def test_it_cleans_up_in_its_own_folder_only(tmp_path: Path, sign: str) -> None:
    """A path is a path: cut at `#`, the clean-up removed the folder with the shorter name."""
    other = tmp_path / "part" / "of-someone-else"
    other.parent.mkdir()
    other.touch()
    world = World(tmp_path / f"part{sign}1")
    world.write_some()
    world.apply(as_number)
    world.rebuild(as_number)
    assert other.exists()
    assert not (world.root / "lake" / "_rebuild" / "d").exists()


MODES = [{}, {"mode": "append"}, {"mode": "history"}, {"deletes": "soft"}]


@pytest.mark.parametrize("dataset", MODES, ids=repr)
def test_it_is_compared_with_the_change_log_before_the_swap(
    world: World, dataset: dict[str, Any]
) -> None:
    world.apply(as_number, **dataset)
    proof = world.rebuild(as_number, **dataset).proof
    assert (proof.changes, proof.keys, proof.wrong) == (18, 7, 0)
    assert proof.rows == len(world.rows())

    def some(changes: Any) -> object:
        return as_number(changes.filter("dynamodb.Keys.id.S <> 'k3'"))

    left_out = world.rebuild(some, **dataset).proof
    assert (left_out.without_rows, left_out.wrong) == (1, 0)


@pytest.mark.parametrize("dataset", MODES, ids=repr)
@pytest.mark.parametrize("wrong", ["version", "key"])
def test_a_rebuilt_table_that_contradicts_the_change_log_is_not_swapped_in(
    world: World, dataset: dict[str, Any], wrong: str
) -> None:
    world.apply(as_number, **dataset)
    before = world.rows()

    def damage() -> None:
        (target,) = (world.root / "lake" / "_rebuild" / "d").iterdir()
        table = DeltaTable(str(target / "d"))
        changed = {"_dz_version": "'0' || _dz_version"} if wrong == "version" else {}
        table.update(changed or {"_dz_key": "'2:idS2:zz'"}, predicate="id = 'k3'")

    with (
        pytest.raises(
            StorageError, match="contradicts the change log in 1 of 7 keys, such as 2:id"
        ),
        at_point(crash_points.AFTER_DATASET_COMMIT, damage, 3),
    ):
        world.rebuild(as_text, **dataset)
    assert world.rows() == before


def test_a_delete_that_was_not_applied_is_found(world: World) -> None:
    world.apply(as_number)

    def damage() -> None:
        (target,) = (world.root / "lake" / "_rebuild" / "d").iterdir()
        table = DeltaTable(str(target / "d"))
        rows = pa.table(table.scan(predicate="id = 'k3'"))
        back = rows.set_column(0, "id", pa.array(["k2"]))
        back = back.set_column(back.column_names.index("_dz_key"), "_dz_key", [["2:idS2:k2"]])
        write_deltalake(table, back, mode="append")

    with (
        pytest.raises(StorageError, match="in 1 of 7 keys, such as 2:idS2:k2: their rows"),
        at_point(crash_points.AFTER_DATASET_COMMIT, damage, 3),
    ):
        world.rebuild(as_number)


def test_quarantined_changes_are_no_contradiction(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put("a", 1)
    world.put("b", 1)
    world.drain()
    world.put("a", -2)
    world.drain()

    def picky(changes: Any) -> object:
        rows = pa.table(changes.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.n.N as n"))
        if "-2" in rows["n"].to_pylist():
            raise ValueError("below 0")
        return rows

    flow = transform(
        name="flow",
        input_mapping={"changes": Input(Stream(source=SOURCE))},
        output_mapping={"d": Output(Dataset("d"))},
        on_error="quarantine",
    )(picky)
    apply_transform(flow, world.layout, settings=EVERY_BATCH, clock=world.clock)
    report = Rebuild(
        flow, flow.outputs["d"], world.layout, settings=EVERY_BATCH, clock=world.clock
    ).run()
    assert (report.proof.wrong, report.applied.quarantined) == (0, 1)
