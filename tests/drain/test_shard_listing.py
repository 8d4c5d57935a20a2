"""Listing of a stream of many shards: few calls, and no shard that comes late or out of order."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.drain import drain_tick, listing_policy
from datazone_dagster.drain.latest_start import closed_since
from datazone_dagster.drain.listing_policy import CALLS_IN_A_WINDOW, CHILD_CALLS
from datazone_dagster.errors import (
    ServiceUnavailableError,
    ShardNotFoundError,
    SourceError,
    ThrottledError,
)
from datazone_dagster.model.checkpoint import ShardState
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord, RecordsPage
from datazone_dagster.model.shard import IteratorStart, Shard, ShardPage, StreamDescription
from datazone_dagster.pipeline import open_gaps
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.drain.listing_flow import Drains, drains_of, many_shards
from tests.examples import examples

TICK = 5.0
SOURCE = DynamoDBSource("orders")


def put(stream: ScriptedStream, count: int, *, value: int = 0) -> None:
    for number in range(count):
        stream.put({"id": {"S": str(number)}, "n": {"N": str(value)}})


def by_key(records: list[ChangeRecord]) -> dict[bytes, list[str]]:
    found: dict[bytes, list[str]] = defaultdict(list)
    for record in records:
        found[record.keys].append(record.event_id)
    return found


def assert_all_landed(drains: Drains) -> None:
    assert isinstance(drains.client, ScriptedStream)
    assert by_key(drains.landed) == by_key(drains.client.changes)


def drained(stream: ScriptedStream) -> Drains:
    drains = drains_of(stream)
    drains.caught_up()
    return drains


def test_a_stream_of_one_page_is_listed_by_each_drain() -> None:
    drains = drains_of(many_shards(4))
    assert [drains.drain(after) for after in (0.0, 0.0, 1.0, TICK)] == [1, 1, 1, 1]


def test_a_large_stream_is_listed_by_a_page_at_each_tick() -> None:
    drains = drains_of(many_shards(12))
    assert drains.drain() == 3
    assert [drains.drain(after) for after in (0.1, 1.0, TICK, TICK, TICK)] == [0, 0, 1, 1, 1]
    assert drains.plan is not None
    assert drains.plan.shards_open == 12
    assert not drains.plan.is_stuck


def test_the_children_of_an_ended_shard_are_asked_for_at_once() -> None:
    stream = many_shards()
    put(stream, 40)
    drains = drained(stream)
    for shard in (3, 7):
        stream.split(shard)
    put(stream, 40, value=1)
    ended = drains.drain(TICK)
    children = drains.drain(0.1)
    assert (ended, children) == (1, 2)
    assert drains.plan is not None
    assert drains.plan.shards_open == 14
    drains.caught_up()
    assert_all_landed(drains)


def test_a_child_that_the_listing_shows_late_is_asked_for_again() -> None:
    stream = many_shards()
    drains = drained(stream)
    stream.roll(2)
    stream.hide(stream.shard_ids()[-1])
    put(stream, 40)
    drains.drain(TICK)
    assert drains.drain(0.1) == 1
    assert len(drains.landed) < len(stream.changes)
    assert drains.drain(1.0) == 0
    stream.show_all()
    drains.drain(TICK)
    assert_all_landed(drains)


def test_the_second_child_of_a_split_may_come_later_than_the_first() -> None:
    stream = many_shards()
    drains = drained(stream)
    stream.split(2)
    stream.hide(stream.shard_ids()[-1])
    put(stream, 40)
    for after in (TICK, 0.1, 0.1):
        drains.drain(after)
    stream.show_all()
    drains.drain(TICK)
    drains.drain(0.1)
    assert_all_landed(drains)
    assert [drains.drain(600.0) for _ in range(3)] == [1, 1, 1], "nothing is asked for for good"


def test_many_shards_that_end_at_once_take_the_newest_pages() -> None:
    stream = many_shards(CHILD_CALLS + 5, page=5)
    drains = drained(stream)
    for _ in range(CHILD_CALLS + 5):
        stream.roll(0)
    put(stream, 60)
    drains.drain(TICK)
    assert drains.drain(0.1) == 5
    assert_all_landed(drains)


def test_shards_that_are_listed_in_another_order_are_found_by_a_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody promises that the newest shards come last."""
    stream = many_shards(CHILD_CALLS + 5, page=10)
    drains = drained(stream)
    for _ in range(CHILD_CALLS + 5):
        stream.roll(0)
    put(stream, 60)
    newest = stream.shard_ids()[CHILD_CALLS + 4]
    listed = stream.describe_page
    monkeypatch.setattr(
        stream,
        "describe_page",
        lambda arn, after: listed(arn, "shardId-9" if after == newest else after),
    )
    drains.drain(TICK)
    drains.drain(0.1)
    drains.drain(0.1)
    assert_all_landed(drains)


def test_an_endpoint_without_the_filter_is_listed_whole(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stream = many_shards()
    monkeypatch.setattr(stream, "children", lambda arn, shard_id: None)
    drains = drained(stream)
    for value in (1, 2):
        stream.split(value)
        put(stream, 40, value=value)
        drains.drain(TICK)
        assert drains.drain(0.1) <= 3
    drains.caught_up()
    assert_all_landed(drains)
    (told,) = [one for one in caplog.records if "ShardFilter" in one.message]
    assert stream.stream_arn in told.message


def test_the_first_listing_goes_on_at_the_next_drains() -> None:
    stream = many_shards(4 * CALLS_IN_A_WINDOW + 7)
    put(stream, 20)
    drains = drains_of(stream)
    assert drains.drain() == CALLS_IN_A_WINDOW
    assert (drains.landed, drains.checkpoint.shards) == ([], {})
    assert drains.drain(1.0) == 0, "the window has no calls left"
    assert drains.drain(TICK) == 2
    assert_all_landed(drains)
    assert len(drains.checkpoint.shards) == 4 * CALLS_IN_A_WINDOW + 7


def test_a_new_process_reads_while_it_lists() -> None:
    stream = many_shards(4 * CALLS_IN_A_WINDOW + 7)
    drains = drains_of(stream)
    for _ in range(3):
        drains.drain(TICK)
    drains.new_process()
    put(stream, 50)
    assert drains.drain(TICK) == CALLS_IN_A_WINDOW
    assert_all_landed(drains)
    assert drains.plan is not None
    assert drains.plan.shards_open == 4 * CALLS_IN_A_WINDOW + 7


def test_a_lost_parent_is_a_gap_once_a_round_after_its_time_lacks_it_too() -> None:
    stream = many_shards()
    drains = drained(stream)
    stream.roll(2)
    stream.roll(11)
    first, second = stream.shard_ids()[-2:]
    stream.hide(first)
    put(stream, 40)
    for _ in range(6):
        drains.drain(TICK)
    assert second in {row.shard_id for row in drains.checkpoint.shards.values()}
    assert drains.plan is not None
    assert drains.plan.waiting == 1
    calls = [drains.drain(TICK) for _ in range(110)]
    assert not drains.checkpoint.open_gaps(), "ten minutes are not over"
    assert sum(calls) < 110 + 4 * 6, "it is looked for a few times only"
    calls = [drains.drain(TICK) for _ in range(130)]
    assert [gap.shard_id for gap in drains.checkpoint.open_gaps()] == [first]
    stream.show_all()


def test_a_late_parent_is_read_before_its_child() -> None:
    stream = many_shards()
    drains = drained(stream)
    stream.roll(2)
    put(stream, 40, value=1)
    stream.roll(11)
    first = stream.shard_ids()[-2]
    stream.hide(first)
    put(stream, 40, value=2)
    for _ in range(20):
        drains.drain(TICK)
    stream.show_all()
    for _ in range(40):
        drains.drain(TICK)
    assert_all_landed(drains)
    assert not drains.checkpoint.open_gaps()


def test_a_shard_that_is_gone_though_it_was_listed_is_given_up_after_a_round() -> None:
    stream = many_shards()
    drains = drained(stream)
    shard = stream._streams[stream.stream_arn].shards[stream.shard_ids()[5]]
    shard.gone = True
    drains.drain(TICK)
    assert [one.row.shard_id for one in drains.outcomes if one.error] == [shard.shard.shard_id]
    assert not drains.checkpoint.open_gaps()
    doubt(drains)
    assert drains.drain(TICK) == 3
    assert [gap.shard_id for gap in drains.checkpoint.open_gaps()] == [shard.shard.shard_id]


def doubt(drains: Drains) -> None:
    """As `RecentListing.learn` does."""
    assert drains.state is not None
    drains.state = replace(drains.state, is_doubted=True)


def test_the_shards_of_a_disabled_stream_are_asked_for_once() -> None:
    stream = many_shards()
    drains = drained(stream)
    stream.disable()
    calls = [drains.drain(TICK) for _ in range(40)]
    assert drains.plan is not None
    assert drains.plan.shards_open == 0
    assert sum(calls) <= 40 + 12 + 3


@pytest.mark.parametrize("error", [ThrottledError("scripted"), ServiceUnavailableError("scripted")])
def test_a_listing_that_fails_for_a_while_holds_nothing_up(error: SourceError) -> None:
    stream = many_shards()
    drains = drained(stream)
    put(stream, 40)
    stream.faults = lambda operation, _, __: error if operation == "DescribeStream" else None
    drains.drain(TICK)
    assert_all_landed(drains)
    for _ in range(10):
        drains.drain(TICK)
    with pytest.raises(type(error)):
        drains.drain(TICK)
    stream.faults = None
    drains.drain(TICK)


def test_a_round_begins_again_if_the_shard_at_its_position_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = many_shards()
    drains = drained(stream)
    drains.drain(TICK)
    assert drains.state is not None
    assert drains.state.view.round is not None
    listed = stream.describe_page
    broken = [drains.state.view.round.last]

    def page(arn: str, after: str | None) -> object:
        if after in broken:
            raise ShardNotFoundError("scripted")
        return listed(arn, after)

    monkeypatch.setattr(stream, "describe_page", page)
    for _ in range(2):
        drains.drain(TICK)
    assert drains.state.view.round is None or drains.state.view.round.lasts


def test_pages_that_do_not_advance_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = many_shards()
    listed = stream.describe_page
    monkeypatch.setattr(stream, "describe_page", lambda arn, after: listed(arn, None))
    with pytest.raises(ServiceUnavailableError, match="again and again"):
        drains_of(stream).drain()


def test_a_tick_of_a_large_stream_reads_children_at_once(tmp_path: Path) -> None:
    stream, layout = many_shards(), Layout(str(tmp_path))
    put(stream, 40)
    assert drain_tick(SOURCE, stream, layout).records == 40
    calls = stream.calls["DescribeStream"]
    stream.split(3)
    put(stream, 40, value=1)
    report = drain_tick(SOURCE, stream, layout)
    assert (report.records, report.caught_up, report.shards_open) == (40, True, 13)
    assert stream.calls["DescribeStream"] - calls <= 3


def test_a_shard_that_others_did_not_find_is_asked_for_ever_more_rarely() -> None:
    """Also if the listing goes on to show it: it may lag, or the reads may."""
    stream = many_shards()
    drains = drained(stream)
    drains.drain(TICK)
    drains.unknown_shards = [stream.shard_ids()[3], "shardId-unlisted"]
    calls = [drains.drain(TICK) for _ in range(9)]
    assert [number for number, count in enumerate(calls) if count == 3] == [0, 1, 4]
    drains.unknown_shards = ()
    assert drains.drain(TICK) == 1


def test_latest_begins_at_the_first_page_of_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock(datetime.now(timezone.utc).replace(microsecond=0))
    stream = ScriptedStream(shards=12, clock=clock)
    stream.shards_per_page = 4
    put(stream, 20)
    clock.advance(timedelta(seconds=10))
    listed = stream.describe_page

    def page(stream_arn: str, after: str | None) -> ShardPage:
        found = listed(stream_arn, after)
        clock.advance(timedelta(seconds=10))
        put(stream, 20, value=stream.calls["DescribeStream"])
        return found

    monkeypatch.setattr(stream, "describe_page", page)
    latest = replace(SOURCE, start="latest")
    assert drain_tick(latest, stream, Layout(str(tmp_path)), clock=clock).records == 60


def test_latest_reads_a_shard_that_closes_while_the_first_listing_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FixedClock(datetime.now(timezone.utc).replace(microsecond=0))
    stream = ScriptedStream(shards=12, clock=clock)
    stream.shards_per_page = 4
    put(stream, 20)
    stream.roll(11)  # closed before the listing
    put(stream, 20, value=1)
    clock.advance(timedelta(seconds=10))
    listed = stream.describe_page

    def page(stream_arn: str, after: str | None) -> ShardPage:
        found = listed(stream_arn, after)
        if after is None:
            clock.advance(timedelta(seconds=10))
            put(stream, 40, value=2)
            stream.roll(8)
        return found

    monkeypatch.setattr(stream, "describe_page", page)
    latest = replace(SOURCE, start="latest")
    layout = Layout(str(tmp_path))
    records = 0
    for _ in range(5):
        records += drain_tick(latest, stream, layout, clock=clock).records
    assert records == 40


def test_latest_leaves_out_what_closed_before_by_the_ids_of_the_children() -> None:
    began = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def name(seconds: int) -> str:
        at = began + timedelta(seconds=seconds)
        return f"shardId-{int(at.timestamp() * 1000):020d}-0a1b2c3d"

    shards = [
        Shard(name(-9000), None, 1, 10),
        Shard(name(-3600), name(-9000), 11, 20),
        Shard(name(5), name(-3600), 21),
        Shard(name(-8000), None, 1, 30),
        Shard("shardId-00000000000000000007-00000001", name(-8000), 31),
    ]
    stream = StreamDescription("arn", "", enabled=True, shards=tuple(shards))
    late = replace(stream, closed_late=frozenset(one.shard_id for one in shards if not one.is_open))
    assert closed_since(stream, began) == set()
    assert closed_since(late, began) == {name(-3600), name(-8000)}


def test_a_large_stream_made_again_under_its_arn_is_recognised(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    old = many_shards()
    put(old, 40)
    client = Swapped(old)
    assert drain_tick(SOURCE, client, layout).records == 40
    new = ScriptedStream(shards=12, view_type=None)
    new._step = 700  # shard ids differ
    new.shards_per_page = 4
    new.enable()
    assert new.stream_arn == old.stream_arn
    put(new, 30, value=1)
    client.stream = new
    records = [drain_tick(SOURCE, client, layout).records for _ in range(4)]
    assert sum(records) == 30
    assert "made again under the same ARN" in open_gaps("orders", layout)[0].reason


class Swapped:
    """A client whose service shows another stream from some moment on."""

    def __init__(self, stream: ScriptedStream) -> None:
        self.stream = stream

    def stream_arns(self) -> tuple[str, ...]:
        return self.stream.stream_arns()

    def describe(self, stream_arn: str) -> StreamDescription:
        return self.stream.describe(stream_arn)

    def describe_page(self, stream_arn: str, after: str | None) -> ShardPage:
        return self.stream.describe_page(stream_arn, after)

    def children(self, stream_arn: str, shard_id: str) -> tuple[Shard, ...] | None:
        return self.stream.children(stream_arn, shard_id)

    def shard_iterator(self, stream_arn: str, shard_id: str, start: IteratorStart) -> str:
        return self.stream.shard_iterator(stream_arn, shard_id, start)

    def get_records(self, shard_iterator: str) -> RecordsPage:
        return self.stream.get_records(shard_iterator)


class WithoutFilter(ScriptedStream):
    """A stream of an endpoint that does not list the children of one shard."""

    def children(self, stream_arn: str, shard_id: str) -> tuple[Shard, ...] | None:
        return None


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 30)),
        st.tuples(st.just("split"), st.integers(0, 30)),
        st.tuples(st.just("roll"), st.integers(0, 30)),
        st.tuples(st.just("hide"), st.integers(0, 60)),
        st.tuples(st.just("show"), st.just(0)),
        st.tuples(st.just("drain"), st.sampled_from([0, 1, 5, 40])),
        st.tuples(st.just("process"), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=examples(40), deadline=None)
@given(steps=STEPS, can_filter=st.booleans(), shards=st.integers(1, 9))
def test_every_change_lands_once_and_in_its_order_whatever_the_listing_shows(
    steps: list[tuple[str, int]], can_filter: bool, shards: int
) -> None:
    stream = (ScriptedStream if can_filter else WithoutFilter)(shards=shards)
    stream.shards_per_page = 2
    drains = drains_of(stream)
    for value, (step, number) in enumerate(steps):
        opened = len(stream._open_shards())
        if step == "put":
            stream.put({"id": {"S": str(number)}, "n": {"N": str(value)}})
        elif step in ("split", "roll"):
            getattr(stream, step)(number % opened)
        elif step == "hide":
            stream.hide(stream.shard_ids()[number % len(stream.shard_ids())])
        elif step == "show":
            stream.show_all()
        elif step == "drain":
            drains.drain(float(number))
        else:
            drains.new_process()
    stream.show_all()
    for _ in range(60):
        drains.drain(TICK)
    assert len(drains.landed) == len(stream.changes)
    assert_all_landed(drains)
    assert not drains.checkpoint.open_gaps()
    assert all(
        row.state is not ShardState.READING or shard_is_open(stream, row.shard_id)
        for row in drains.checkpoint.shards.values()
    )


def shard_is_open(stream: ScriptedStream, shard_id: str) -> bool:
    shard: Shard = stream._streams[stream.stream_arn].shards[shard_id].shard
    return shard.is_open


def test_a_question_is_asked_ever_less_often() -> None:
    asked: listing_policy.Questions = {}
    times = []
    for second in range(4000):
        names = listing_policy.due(asked, ["s"] if "s" not in asked else [], float(second))
        if names:
            times.append(second)
            asked = listing_policy.after_asking(asked, names, float(second))
    assert times == [0, 5, 20, 65, 200, 605, 1205, 1805, 2405, 3005, 3605]
