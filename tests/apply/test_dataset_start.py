"""A dataset that is added later equals one that was there from the start, however short the log."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply.dataset_start import start_of
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_base import SnapshotBase
from datazone_dagster.model.snapshot_state import SnapshotState, cancelled, done, wanted
from datazone_dagster.observe.metadata import apply_metadata
from datazone_dagster.pipeline import (
    apply_transform,
    cancel_snapshot,
    read_dataset,
    rebuild_dataset,
    want_snapshot,
)
from datazone_dagster.process import crash_points
from datazone_dagster.testing import Crash, crash_at
from tests.snapshot.flow import SOURCE, World, item, key, rows_of

AT = datetime(2030, 1, 1, tzinfo=timezone.utc)


def into(dataset_id: str, function: Any = None, **options: Any) -> Transform:
    def select(orders: Any) -> Any:
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")

    return transform(
        name=f"into_{dataset_id}",
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"rows": Output(Dataset(dataset_id, **options))},
    )(function or select)


def opened(world: World) -> ChangeLogSnapshot:
    log = ChangeLog(world.layout, SOURCE).open()
    assert log is not None
    return log


def truncate(world: World, through: int) -> None:
    """As days later, when the stream has none of the removed changes any more."""
    world.clock.advance(timedelta(days=3))
    world.stream.trim()
    world.drain()
    opened(world).truncate(through, world.clock() + timedelta(days=1))
    assert opened(world).truncated_through <= through


def add(world: World, dataset_id: str, **options: Any) -> None:
    flow = into(dataset_id, **options)
    apply_transform(flow, world.layout, clock=world.clock)


def hand_over(world: World, later: str) -> None:
    for _ in range(9):
        if world.snapshot().is_over:
            break
        world.wait()
        world.apply()
        add(world, later)
    world.apply()
    add(world, later)


def rows(world: World, dataset_id: str) -> list[tuple[str, str, str, datetime]]:
    """All that a row says, hidden columns included."""
    found = read_dataset(world.layout, dataset_id).to_pylist()
    return sorted(
        (row["id"], row["total"], row["_dz_version"], row["_dz_event_time"]) for row in found
    )


def lived(root: Path, seed: int, *, ends: bool = True) -> World:
    """A world with items from before the stream, a snapshot, and perhaps a gap with a resync."""
    choose = random.Random(seed)
    world = World(Layout(str(root)), into("current"))
    for number in range(8):
        world.table.put_unseen(item(number, 1))
    world.clock.advance(timedelta(hours=1))

    def write() -> None:
        for _ in range(choose.randint(1, 3)):
            number = choose.randrange(12)
            if choose.random() < 0.4:
                world.stream.delete(key(number))
            else:
                world.stream.put(item(number, choose.randrange(100)))
        world.drain()
        world.apply()

    def live(steps: int) -> None:
        for _ in range(steps):
            write()

    def scan() -> None:
        """With changes between the pages, and a new stream shard at times."""
        while not world.snapshot(stop=_after_pages(world, 2)).is_over:
            world.clock.advance(timedelta(seconds=65))
            if choose.random() < 0.3:
                world.stream.split()
            write()

    live(2)
    scan()
    live(2)
    if ends and choose.random() < 0.5:
        for number in range(6):
            if f"k{number}" in world.items():
                world.table.delete_unseen(key(number))
        want_snapshot("orders", world.layout, "resync", clock=world.clock)
        scan()
        live(1)
    if not ends:
        want_snapshot("orders", world.layout, "resync", clock=world.clock)
        world.snapshot(stop=_after_pages(world, 1))
        live(2)
    world.drain()
    world.apply()
    return world


def copied(root: Path) -> World:
    """A world with two items, handed over with its first snapshot."""
    world = World(Layout(str(root)), into("current"))
    for number in (1, 2):
        world.stream.put(item(number))
    world.drain()
    world.hand_over()
    return world


def _after_pages(world: World, number: int) -> Any:
    most = world.table.calls["Scan"] + number
    return lambda: world.table.calls["Scan"] >= most


@pytest.mark.parametrize(
    ("seed", "everywhere"),
    [(0, False), *(pytest.param(seed, True, marks=pytest.mark.faults) for seed in range(8))],
)
def test_a_dataset_added_later_equals_one_from_the_start(
    tmp_path: Path, seed: int, everywhere: bool
) -> None:
    """With a truncation at each batch: as long as the scan is whole, otherwise refused."""
    world = lived(tmp_path, seed)
    base, head = opened(world).snapshot, opened(world).head
    assert base is not None
    assert base.base is not None
    assert base.base.batch > 1
    last = base.base.batch
    places = range(head + 1) if everywhere else [0, last - 1, last, last + 1, head]
    for through in places:
        truncate(world, through)
        later = f"later_{through}"
        if opened(world).truncated_through <= last:
            add(world, later)
            assert rows(world, later) == rows(world, "current")
            if through != last and not everywhere:
                continue
            add(world, f"soft_{through}", deletes="soft")
            add(world, f"past_{through}", mode="history")
            assert rows_of(world.layout, f"soft_{through}") == world.items()
            assert rows_of(world.layout, f"past_{through}") == world.items()
            rebuilt = rebuild_dataset(world.flow, "current", world.layout, clock=world.clock)
            assert rebuilt.proof.wrong == 0
            assert rows(world, later) == rows(world, "current")
        else:
            with pytest.raises(StorageError, match="datazone-dagster resync orders"):
                add(world, later)
            with pytest.raises(StorageError, match="datazone-dagster resync orders"):
                rebuild_dataset(world.flow, "current", world.layout, clock=world.clock)
    assert opened(world).truncated_through > last


def test_a_dataset_added_during_a_scan_is_there_when_it_is_handed_over(tmp_path: Path) -> None:
    """The cure of the refusal: it needs no handover, which waits for the dataset itself."""
    world = lived(tmp_path, 1, ends=False)
    state = opened(world).snapshot
    assert state is not None
    assert state.announced_batch is not None
    truncate(world, state.announced_batch)
    with crash_at(crash_points.BEFORE_DATASET_COMMIT), pytest.raises(Crash):
        add(world, "later")
    add(world, "later")
    assert len(rows(world, "later")) < len(world.items())
    hand_over(world, "later")
    assert rows(world, "later") == rows(world, "current")


@pytest.mark.faults
def test_a_dataset_whose_start_was_given_up_waits_for_another_snapshot(tmp_path: Path) -> None:
    world = lived(tmp_path, 2, ends=False)
    state = opened(world).snapshot
    assert state is not None
    assert state.announced_batch is not None
    truncate(world, state.announced_batch)
    add(world, "later")
    cancel_snapshot("orders", world.layout)
    with pytest.raises(StorageError, match="datazone-dagster resync orders"):
        add(world, "even_later")
    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    hand_over(world, "later")
    add(world, "even_later")
    assert rows(world, "later") == rows(world, "even_later") == rows(world, "current")


def test_keys_that_only_a_later_dataset_shows_do_not_come_back(tmp_path: Path) -> None:
    """Their deletes were lost, and the sweep asked only for keys of other datasets."""

    def none(orders: Any) -> Any:
        return orders.select("dynamodb.Keys.id.S as id").filter("id = 'nobody'")

    world = World(Layout(str(tmp_path)), into("current", none))
    world.stream.put(item(1))
    world.stream.put(item(2))
    world.drain()
    world.hand_over()
    world.table.delete_unseen(key(1))
    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    world.hand_over()
    for later, options in {
        "later": {},
        "soft": {"deletes": "soft"},
        "past": {"mode": "history"},
    }.items():
        add(world, later, **options)
        assert rows_of(world.layout, later) == {"k2": "0"}
    add(world, "events", mode="append")
    assert len(rows(world, "events")) == 5, "an append dataset has every event"


@pytest.mark.parametrize("options", [{"deletes": "soft"}, {"mode": "history"}])
def test_a_rebuild_counts_keys_that_the_resync_did_not_ask_for(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Their deletes were lost, and the function left them out at the sweep."""

    def second(orders: Any) -> Any:
        return orders.select("dynamodb.Keys.id.S as id").filter("id = 'k2'")

    world = World(Layout(str(tmp_path)), into("past", second, **options))
    for number in (1, 2):
        world.stream.put(item(number))
    world.drain()
    world.hand_over()
    world.table.delete_unseen(key(1))
    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    world.hand_over()
    done = rebuild_dataset(world.flow, "past", world.layout, clock=world.clock)
    assert done.unshown_keys == 0
    world.flow = into("past", **options)
    done = rebuild_dataset(world.flow, "past", world.layout, clock=world.clock)
    assert done.unshown_keys == 1
    want_snapshot("orders", world.layout, "resync", clock=world.clock)
    world.hand_over()
    assert rows_of(world.layout, "past") == {"k2": "0"}
    done = rebuild_dataset(world.flow, "past", world.layout, clock=world.clock)
    assert done.unshown_keys == 0


def test_it_says_from_where_on_it_has_changes(tmp_path: Path) -> None:
    world = copied(tmp_path)
    state = opened(world).snapshot
    assert state is not None
    assert state.base is not None
    before = opened(world).record_count()
    truncate(world, state.base.batch)
    reports = apply_transform(into("events2", mode="append"), world.layout, clock=world.clock)
    start = reports["events2"].start
    assert start == state.base
    shown = apply_metadata(reports["events2"], None, now=world.clock())["begins_with"]
    assert f"{state.base.announced_at:%Y-%m-%d %H:%M:%S} UTC" in str(shown)
    stored = DeltaTable(world.layout.dataset("events2")).metadata().configuration
    assert SnapshotBase.from_json(stored["datazone.start"]) == state.base
    events = read_dataset(world.layout, "events2")
    assert 0 < events.num_rows < before

    world.stream.put(item(1, 7))
    world.drain()
    apply_transform(into("events2", mode="append"), world.layout, clock=world.clock)
    assert read_dataset(world.layout, "events2").num_rows == events.num_rows + 1


def test_the_past_of_a_dataset_is_never_rebuilt_away(tmp_path: Path) -> None:
    world = copied(tmp_path)
    for later, options in {"past": {"mode": "history"}, "soft": {"deletes": "soft"}}.items():
        add(world, later, **options)
        before = rows(world, later)
        state = opened(world).snapshot
        assert state is not None
        assert state.base is not None
        truncate(world, state.base.batch)
        flow = into(later, **options)
        with pytest.raises(StorageError, match="A dataset with a new id can start"):
            rebuild_dataset(flow, later, world.layout, clock=world.clock)
        assert rows(world, later) == before


def state_of(**fields: Any) -> SnapshotState:
    announced = replace(
        wanted("start"), epoch=2, announced_at=AT, announced_batch=5, phase=_phase("scanned")
    )
    return replace(announced, **fields)


def _phase(name: str) -> Any:
    return SnapshotState.from_json(f'{{"id": "1", "phase": "{name}"}}').phase


@pytest.mark.parametrize(
    ("state", "truncated", "batch"),
    [
        (None, 3, None),
        (state_of(), 0, None),
        (state_of(), 5, 5),
        (state_of(), 6, None),
        (state_of(announced_batch=None), 3, None),
        (done(state_of(announced_batch=None), AT), 3, None),
        (done(state_of(), AT), 0, None),
        (done(state_of(), AT), 5, 5),
        (done(state_of(), AT), 6, None),
        (done(state_of(reason="resync"), AT), 0, 5),
        (done(state_of(reads="windows"), AT), 3, None),
        (cancelled(state_of()), 3, None),
        (wanted("resync", done(state_of(), AT)), 4, 5),
        (done(replace(done(state_of(), AT), reads="windows", announced_batch=9), AT), 4, 5),
        (replace(done(state_of(), AT), phase=_phase("scanning"), announced_batch=9), 4, 5),
        (replace(done(state_of(), AT), phase=_phase("scanning"), announced_batch=9), 7, 9),
    ],
)
def test_the_start_is_where_everything_is_left(
    state: SnapshotState | None, truncated: int, batch: int | None
) -> None:
    if state is not None:
        state = SnapshotState.from_json(state.to_json())
    start = start_of(state, truncated, Dataset("d"), rebuilds=False)
    assert (None if start is None else start.batch) == batch
