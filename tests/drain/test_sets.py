"""Several drains of one source: a sensor that lists, and runs that read a set of shards each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.changelog import ranges
from datazone_dagster.changelog.checkpoints import CheckpointTable
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.numbering import BY_COMMIT
from datazone_dagster.drain import DrainSettings, drain_once, drain_tick
from datazone_dagster.errors import ConcurrentWriterError, SourceMismatchError, ThrottledError
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.drain_part import SetPart, StreamPart
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import IteratorStart
from datazone_dagster.model.shard_set import ShardSet, shard_sets
from datazone_dagster.model.source_identity import SourceIdentity
from datazone_dagster.model.table_file import DataFile
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import (
    Crash,
    Fault,
    FaultKind,
    FaultPlan,
    FixedClock,
    ScriptedStream,
    at_point,
)
from tests.examples import examples
from tests.new_process import NewProcess

SOURCE = DynamoDBSource("orders", "eu-west-1", start="trim_horizon", drain="runs", drain_workers=2)
TWO_SETS = StreamPart(2)
SMALL = DrainSettings(budget_bytes=300, max_workers=1)
POINTS = (
    crash_points.AFTER_READ,
    crash_points.AFTER_CHANGE_LOG_COMMIT,
    crash_points.AFTER_CHECKPOINT_COMMIT,
)


@dataclass
class World:
    """A stream, its lakehouse, and the processes that drain it."""

    layout: Layout
    stream: ScriptedStream = field(default_factory=lambda: ScriptedStream(page_records=2, shards=3))
    puts: int = 0

    def put(self, count: int = 1) -> None:
        for _ in range(count):
            self.stream.put({"id": {"S": str(self.puts % 7)}, "n": {"N": str(self.puts)}})
            self.puts += 1

    def tick(self, part: StreamPart | None = TWO_SETS, *, new: bool = False) -> DrainReport:
        client = NewProcess(self.stream) if new else self.stream
        return drain_tick(SOURCE, client, self.layout, settings=SMALL, part=part)

    def work(self, shards: ShardSet, bounds: DrainSettings = SMALL) -> DrainReport:
        client = NewProcess(self.stream)
        return drain_tick(SOURCE, client, self.layout, settings=bounds, part=SetPart(shards))

    def rows(self) -> list[dict[str, object]]:
        log = ChangeLog(self.layout, SOURCE.name).open()
        assert log is not None
        columns = [Log.BATCH, Log.SHARD_ID, Log.EVENT_ID, Log.KEYS]
        chunks = log.chunks(0, log.head, 1 << 30, columns=columns)
        return [row for chunk in chunks for row in chunk.rows.to_pylist()]

    def catch_up(self, sets: int = 2) -> None:
        for _ in range(30):
            self.tick(StreamPart(sets))
            reports = [self.work(one, DrainSettings()) for one in shard_sets(sets)]
            if len(self.rows()) >= len(self.stream.changes) and all(
                one.caught_up for one in reports
            ):
                return
        raise AssertionError("the stream is not read to its end")

    def check(self) -> None:
        """Every change once, those of an item oldest first."""
        rows = self.rows()
        ids = [row[Log.EVENT_ID] for row in rows]
        assert sorted(map(str, ids)) == sorted(one.event_id for one in self.stream.changes)
        for key in {row[Log.KEYS] for row in rows}:
            found = [row[Log.EVENT_ID] for row in rows if row[Log.KEYS] == key]
            of_key = [one.event_id for one in self.stream.changes if one.keys.decode() == key]
            assert found == of_key
        numbers = {int(str(row[Log.BATCH])) for row in rows}
        assert sorted(numbers) == list(range(1, max(numbers) + 1))


def world_in(root: Path) -> World:
    return World(Layout(str(root)))


SETS = (*shard_sets(2), *shard_sets(3))
WHO = st.sampled_from([None, *SETS])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(1, 6)),
        st.tuples(st.sampled_from(["split", "roll"]), st.integers(0, 2)),
        st.tuples(st.just("drain"), WHO, WHO, st.sampled_from(POINTS), st.booleans()),
    ),
    max_size=14,
)


@settings(max_examples=examples(12), deadline=None)
@given(STEPS)
def test_any_overlap_and_any_death_lands_each_change_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[object, ...]]
) -> None:
    """The other drain runs in the middle of the first, which may die then; K changes on the way."""
    world = world_in(tmp_path_factory.mktemp("lake"))
    world.put(5)
    for what, *more in steps:
        if what == "put":
            world.put(int(str(more[0])))
        elif what in ("split", "roll"):
            getattr(world.stream, str(what))(int(str(more[0])))
        else:
            first, other, point, dies = more
            assert isinstance(point, str)

            def interrupted(other: object = other, dies: object = dies) -> None:
                drain(world, other)
                if dies:
                    raise Crash

            with suppress(Crash), at_point(point, interrupted):
                drain(world, first)
    world.put(3)
    world.catch_up()
    world.check()


def drain(world: World, who: object) -> None:
    if isinstance(who, ShardSet):
        world.work(who)
    else:
        world.tick(new=True)


def test_children_in_another_set_are_read_once_their_parent_is_finished(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(9)
    for _ in range(3):
        world.stream.split(0)
        world.put(9)
    sets = {name: next(one for one in shard_sets(2) if one.has(name)) for name in all_ids(world)}
    assert len(set(sets.values())) == 2
    world.tick()
    first, second = shard_sets(2)
    for _ in range(12):
        world.work(first, DrainSettings())
        world.work(second, DrainSettings())
    world.check()


def all_ids(world: World) -> list[str]:
    found = world.stream.describe(world.stream.stream_arn)
    return [one.shard_id for one in found.shards]


def listings(world: World) -> dict[str, int]:
    reads = {"GetRecords", "GetShardIterator"}
    return {name: times for name, times in world.stream.calls.items() if name not in reads}


def test_a_drain_run_lists_nothing_and_the_sensor_reads_nothing(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(9)
    world.tick()
    assert "GetRecords" not in world.stream.calls
    before = listings(world)
    for one in shard_sets(2):
        world.work(one)
    assert listings(world) == before
    world.check()


def test_the_sensor_finds_the_gap_of_a_shard_that_vanished(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(9)
    world.tick()
    for one in shard_sets(2):
        world.work(one)
    world.put(9)
    gone = world.stream.shard_ids()[0]
    world.stream.roll(0)
    world.stream.hide(gone)
    world.stream.trim()
    report = world.tick()
    assert [gap.shard_id for gap in report.gaps] == [gone]


def test_the_sensor_looks_at_once_for_a_shard_that_a_run_finds_gone(tmp_path: Path) -> None:
    world = World(Layout(str(tmp_path)), ScriptedStream(page_records=2, shards=12))
    world.stream.shards_per_page = 4
    world.put(40)
    world.catch_up()
    gone = world.stream.shard_ids()[5]
    world.put(40)
    world.stream.roll(5)
    world.stream.trim()
    (own,) = [one for one in shard_sets(2) if one.has(gone)]
    unknown = world.work(own, DrainSettings()).shards_unknown
    assert unknown == (gone,)
    assert gone not in {gap.shard_id for gap in world.tick().gaps}
    told = world.tick(StreamPart(2, unknown_shards=frozenset(unknown)))
    assert gone in {gap.shard_id for gap in told.gaps}


def test_while_listings_fail_the_sensor_maintains_what_runs_land(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(3)
    world.catch_up()
    world.stream.faults = FaultPlan([Fault("ListStreams", FaultKind.THROTTLING, times=None)])
    log = ChangeLog(world.layout, SOURCE.name)
    before = log.table.now()
    for _ in range(40):
        world.put()
        for one in shard_sets(2):
            world.work(one)
    log.table.forget()
    with pytest.raises(ThrottledError):
        world.tick(new=True)
    after = log.table.now()
    assert before is not None
    assert after is not None
    assert (after.checkpoint_version or 0) > max(before.version, before.checkpoint_version or 0)
    world.stream.faults = None
    world.tick(new=True)
    world.check()


@pytest.mark.parametrize("drain", [drain_once, drain_tick])
def test_a_drain_by_hand_next_to_runs_says_that_they_drain(
    tmp_path: Path, drain: Callable[..., DrainReport]
) -> None:
    world = world_in(tmp_path)
    world.put(9)
    world.tick()
    (other, *_) = [one for one in shard_sets(2) if one.has(world.stream.shard_ids()[0])]
    with (
        at_point(crash_points.AFTER_READ, lambda: world.work(other)),
        pytest.raises(
            ConcurrentWriterError, match=f"Drain runs drain source.*{other.name}"
        ) as found,
    ):
        drain(SOURCE, NewProcess(world.stream), world.layout)
    assert "stop the sensor drain_orders" in str(found.value)
    while not drain(SOURCE, NewProcess(world.stream), world.layout).caught_up:
        pass
    world.check()


def test_the_sensor_tells_what_the_runs_have_landed_and_how_far_they_are(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(9)
    report = world.tick(StreamPart(2, {}, None))
    assert (report.batch, report.caught_up) == (None, False)
    assert [one.has_run for one in report.sets] == [False, False]
    assert sum(one.shards for one in report.sets) == 3
    assert report.oldest_unread_at is not None
    for one in shard_sets(2):
        world.work(one)
    now = datetime.now(timezone.utc)
    read_at = {"1-of-2": now, "2-of-2": now - timedelta(seconds=20)}
    report = world.tick(StreamPart(2, read_at, 0))
    assert (report.records, report.caught_up, report.oldest_unread_at) == (9, True, None)
    assert report.batch == report.batches == report.head_batch >= 2
    assert 20 <= report.latest_age_seconds < 40
    late = world.tick(StreamPart(2, {**read_at, "2-of-2": now - timedelta(minutes=9)}, 0))
    assert (late.caught_up, late.batch) == (False, report.batch)


def test_a_snapshot_that_waits_is_passed_when_every_set_has_read_its_shards(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(9)
    world.tick()
    log = ChangeLog(world.layout, SOURCE.name).open_or_create()
    awaited = datetime.now(timezone.utc) - timedelta(seconds=30)
    for one in shard_sets(2):
        world.work(one)
    log = ChangeLog(world.layout, SOURCE.name).open_or_create()
    log.set_property("datazone.drain_awaited", awaited.isoformat(), "Testing")
    for one in shard_sets(2):
        world.work(one)
    saved = CheckpointTable(world.layout, SOURCE.name).open()
    assert saved is not None
    assert saved.checkpoint.has_passed(awaited)


def test_a_run_that_reads_another_table_lands_nothing(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(3)
    world.tick()
    other = ScriptedStream("payments", shards=3)
    other.put({"id": {"S": "1"}})
    with pytest.raises(SourceMismatchError):
        drain_tick(SOURCE, other, world.layout, part=SetPart(shard_sets(2)[0], is_first=True))


REFUSED = [FaultKind.THROTTLING, FaultKind.UNAVAILABLE]


def begin(world: World, client: StreamClient) -> list[DrainReport]:
    """Drain as the first batches of new runs."""
    return [
        drain_tick(SOURCE, client, world.layout, part=SetPart(one, is_first=True))
        for one in shard_sets(2)
    ]


@pytest.mark.parametrize("kind", REFUSED)
def test_a_new_run_reads_the_known_shards_while_listings_are_refused(
    tmp_path: Path, kind: FaultKind, caplog: pytest.LogCaptureFixture
) -> None:
    world = world_in(tmp_path)
    world.put(3)
    world.catch_up()
    world.put(6)
    world.stream.faults = FaultPlan([Fault("ListStreams", kind, times=None)])
    reports = begin(world, NewProcess(world.stream))
    assert sum(one.records for one in reports) == 6
    assert all(one.table_unchecked for one in reports)
    assert "is checked once its streams can be listed: " in caplog.text
    world.stream.faults = None
    assert not any(one.table_unchecked for one in begin(world, NewProcess(world.stream)))
    world.check()


def test_batches_after_the_first_of_a_run_ask_for_no_listing(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(40)
    world.tick()
    world.stream.faults = FaultPlan([Fault("ListStreams", FaultKind.THROTTLING, times=None)])
    before = world.stream.calls["ListStreams"]
    part = SetPart(shard_sets(1)[0], is_first=True)
    bounds = replace(SMALL, budget_bytes=100)
    report = drain_tick(SOURCE, NewProcess(world.stream), world.layout, settings=bounds, part=part)
    assert report.batches > 1
    assert report.table_unchecked
    assert world.stream.calls["ListStreams"] == before + 1


def test_a_run_that_knows_its_table_lands_nothing_of_another_while_listings_are_refused(
    tmp_path: Path,
) -> None:
    world = world_in(tmp_path)
    world.put(3)
    world.catch_up()
    other = ScriptedStream("payments", shards=3)
    other.put({"id": {"S": "1"}})
    other.faults = FaultPlan([Fault("ListStreams", FaultKind.THROTTLING, times=None)])
    with pytest.raises(SourceMismatchError):
        begin(world, other)
    assert "GetShardIterator" not in other.calls


FOUND = SourceIdentity(
    "orders", "eu-west-1", "https://a", table_arn="arn:aws:dynamodb:eu-west-1:1:table/orders"
)


@pytest.mark.parametrize(
    ("undescribed", "same"),
    [
        (SourceIdentity("orders", "eu-west-1", "https://a"), True),
        (SourceIdentity("orders", "eu-west-1", "https://b"), True),
        (SourceIdentity("orders", "", "https://a"), True),
        (SourceIdentity("orders", "us-east-1", "https://a"), False),
        (SourceIdentity("payments", "eu-west-1", "https://a"), False),
    ],
)
def test_a_table_that_no_answer_has_described_is_known_by_name_and_region(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    undescribed: SourceIdentity,
    same: bool,
) -> None:
    world = world_in(tmp_path)
    monkeypatch.setattr(world.stream, "identity", lambda: FOUND)
    world.put(3)
    world.catch_up()
    world.put(6)
    world.stream.faults = FaultPlan([Fault("ListStreams", FaultKind.THROTTLING, times=None)])
    monkeypatch.setattr(world.stream, "identity", lambda: replace(undescribed, exists=False))
    expected = nullcontext() if same else pytest.raises(SourceMismatchError)
    with expected:
        begin(world, world.stream)
    assert len(world.rows()) == (9 if same else 3)


def test_a_stream_is_made_again_only_for_the_table_of_the_change_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_in(tmp_path)
    monkeypatch.setattr(world.stream, "identity", lambda: FOUND)
    world.put(9)
    world.catch_up()
    other = ScriptedStream(page_records=2, shards=3)  # the same ARN, at another endpoint
    other.put({"id": {"S": "1"}})
    told = iter([replace(FOUND, table_arn="", exists=False), replace(FOUND, table_arn="another")])
    monkeypatch.setattr(other, "identity", lambda: next(told))
    other.faults = FaultPlan([Fault("ListStreams", FaultKind.THROTTLING)])
    part = SetPart(shard_sets(1)[0], is_first=True)
    with pytest.raises(SourceMismatchError):
        drain_tick(SOURCE, other, world.layout, part=part)
    saved = CheckpointTable(world.layout, SOURCE.name).open()
    assert saved is not None
    assert saved.checkpoint.open_gaps() == ()


@pytest.mark.parametrize("part", [TWO_SETS, SetPart(shard_sets(2)[0], is_first=True)])
def test_the_change_log_of_another_table_stays_as_it_is(
    tmp_path: Path, part: StreamPart | SetPart
) -> None:
    world = world_in(tmp_path)
    world.put(3)
    world.tick(None)
    other = ScriptedStream("payments", shards=3)
    with pytest.raises(SourceMismatchError):
        drain_tick(SOURCE, other, world.layout, part=part)
    log = ChangeLog(world.layout, SOURCE.name).open()
    assert log is not None
    assert BY_COMMIT not in log.properties


def test_a_tick_that_stores_the_salt_after_a_worker_keeps_what_that_one_landed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SALT_VARIABLE, "0123456789abcdef0123456789abcdef")
    world = world_in(tmp_path)
    world.put(9)
    world.catch_up()
    rolled = world.stream.shard_ids()[1]
    world.stream.roll(1)  # a new shard: the tick saves the checkpoint
    (other,) = [one for one in shard_sets(2) if not one.has(rolled)]

    def lands() -> None:
        world.put(9)
        assert world.work(other, DrainSettings()).batch is not None

    hashing = replace(SOURCE, drain="tick", drain_workers=None, mask={"x": "hash"})
    with at_point(crash_points.AFTER_READ, lands):
        drain_tick(hashing, NewProcess(world.stream), world.layout)
    saved = CheckpointTable(world.layout, SOURCE.name).open()
    log = ChangeLog(world.layout, SOURCE.name).open()
    assert saved is not None
    assert log is not None
    reached = {one.shard_id: one.sequence_number for one in saved.checkpoint.shards.values()}
    for one in log.landed_since(0):
        assert (reached[one.shard_id] or 0) >= (one.sequence_number or 0)
    world.catch_up()
    world.check()


def test_back_to_ticks_and_to_runs_again(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    for _ in range(2):
        world.put(9)
        world.catch_up()
        world.put(9)
        while not world.tick(None).caught_up:
            pass
        world.check()


def test_a_save_keeps_what_another_drain_saved_meanwhile(tmp_path: Path) -> None:
    """That a parent is finished is in no row of the change log: only the checkpoint says so."""
    world = world_in(tmp_path)
    world.put(9)
    for _ in range(3):
        world.stream.roll(0)
    world.tick()
    first, second = shard_sets(2)
    with at_point(crash_points.AFTER_READ, lambda: world.work(second, DrainSettings())):
        world.work(first, DrainSettings())
    saved = CheckpointTable(world.layout, SOURCE.name).open()
    assert saved is not None
    finished = {one.shard_id for one in saved.checkpoint.shards.values() if one.is_done}
    assert finished == set(all_ids(world)[:3])
    assert len({next(one for one in shard_sets(2) if one.has(name)) for name in finished}) == 2


def test_a_frozen_run_wakes_up_after_its_set_was_taken_over(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(12)
    world.tick()
    (frozen,) = [one for one in shard_sets(2) if one.has(world.stream.shard_ids()[0])]

    def others() -> None:
        for _ in range(3):
            world.work(frozen)
            world.put(6)
        world.tick(new=True)

    with at_point(crash_points.AFTER_READ, others):
        report = world.work(frozen)
    assert report.lost_race
    world.catch_up()
    world.check()


@dataclass
class Frozen:
    """A process that stops before its first read, until others have read all and it is trimmed."""

    world: World
    process: NewProcess = field(init=False)

    def __post_init__(self) -> None:
        self.process = NewProcess(self.world.stream)
        real = self.process.shard_iterator

        def shard_iterator(stream_arn: str, shard_id: str, start: IteratorStart) -> str:
            self.process.shard_iterator = real
            self.world.catch_up()
            self.world.stream.trim()
            return real(stream_arn, shard_id, start)

        self.process.shard_iterator = shard_iterator


def test_what_others_landed_while_a_run_was_frozen_is_no_gap(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(12)
    world.catch_up()
    world.put(12)
    frozen = Frozen(world).process
    (own,) = [one for one in shard_sets(2) if one.has(world.stream.shard_ids()[0])]
    report = drain_tick(SOURCE, frozen, world.layout, settings=SMALL, part=SetPart(own))
    assert report.lost_race
    assert world.tick(new=True).gaps == ()
    world.check()


def test_what_nobody_has_landed_is_a_gap(tmp_path: Path) -> None:
    world = world_in(tmp_path)
    world.put(12)
    world.catch_up()
    world.put(12)
    world.stream.trim()
    for one in shard_sets(2):
        assert not world.work(one, DrainSettings()).lost_race
    with_records = {row[Log.SHARD_ID] for row in world.rows()}
    assert {gap.shard_id for gap in world.tick(new=True).gaps} == with_records


def tips(world: World, clock: FixedClock, client: NewProcess) -> set[datetime | None]:
    one = SetPart(shard_sets(1)[0])
    drain_tick(SOURCE, client, world.layout, clock=clock, part=one)
    saved = CheckpointTable(world.layout, SOURCE.name).open()
    assert saved is not None
    assert len(world.rows()) == world.puts
    return {row.tip_at for row in saved.checkpoint.shards.values()}


@pytest.mark.parametrize("ahead", [timedelta(hours=3), -timedelta(hours=3)])
def test_the_clock_of_the_service_says_up_to_when_a_run_has_read(
    tmp_path: Path, ahead: timedelta
) -> None:
    world = world_in(tmp_path)
    served = world.stream.describe(world.stream.stream_arn).served_at
    assert served is not None
    world.put(12)
    world.tick(StreamPart(1))
    found = tips(world, FixedClock(served + ahead), NewProcess(world.stream))
    assert found == {served}


def test_without_the_time_of_the_service_a_run_does_not_say_up_to_when_it_has_read(
    tmp_path: Path,
) -> None:
    world = world_in(tmp_path)
    world.put(12)
    world.tick(StreamPart(1))
    silent = NewProcess(world.stream)
    silent.told_time = lambda: None
    assert tips(world, FixedClock(), silent) == {None}


def test_the_sensor_reads_no_landed_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each tick is of a new process, which opens the log at the checkpoint of its table."""
    world = world_in(tmp_path)
    world.put(3)
    world.catch_up()
    known = world.tick().head_batch
    read: list[str] = []
    real = ranges.files_between

    def files_between(files: Iterable[DataFile], *bounds: Any) -> list[DataFile]:
        found = real(files, *bounds)
        read.extend(one.path for one in found)
        return found

    for _ in range(9):
        world.put()
        for one in shard_sets(2):
            world.work(one)
        ChangeLog(world.layout, SOURCE.name).table.forget()
        monkeypatch.setattr(ranges, "files_between", files_between)
        report = world.tick(StreamPart(2, reported_batch=known), new=True)
        monkeypatch.setattr(ranges, "files_between", real)
    assert report.batches == 9
    assert report.event_time_max is not None
    assert read == []
