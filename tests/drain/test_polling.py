"""Polling: quiet shards are asked less often; the shard that waited longest is asked first."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import ShardRead
from datazone_dagster.drain.polling import (
    LISTENING,
    SAME_TICK,
    SILENT_INTERVAL_SECONDS,
    Activities,
    Poll,
    due,
    record_activity,
    seconds_to_next,
)
from datazone_dagster.model.checkpoint import ShardCheckpoint
from datazone_dagster.model.shard import TRIM_HORIZON

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
TICK = 5.0


def read(name: str, *, closed: bool = False) -> ShardRead:
    return ShardRead(ShardCheckpoint("arn", name, NOW), TRIM_HORIZON, closed)


def asked(poll: Poll) -> list[str]:
    return [one.shard.shard_id for one in poll.reads]


def outcome(name: str, *, records: int = 0, at_latest: bool = True, calls: int = 1) -> ShardOutcome:
    row = ShardCheckpoint("arn", name, NOW)
    return ShardOutcome(row, records=records, at_latest=at_latest, calls=calls)


def calls_in(seconds: float, busy: set[int], activities: Activities, since: float = 0.0) -> int:
    """Count how often ticks ask a shard that has records in the ticks of `busy`."""
    calls = 0
    for tick in range(int(seconds / TICK)):
        now = since + tick * TICK
        if due([read("s")], activities, now).reads:
            calls += 1
            record_activity(activities, [outcome("s", records=int(tick in busy))], now)
    return calls


def test_a_shard_never_asked_is_asked() -> None:
    assert asked(due([read("a"), read("b")], {}, 0.0)) == ["a", "b"]


def test_a_silent_shard_costs_a_third_of_the_calls_and_a_busy_one_all() -> None:
    activities: Activities = {}
    assert calls_in(120, set(), activities) == 24
    assert calls_in(480, set(), activities, since=120) == 480 / TICK / 2
    assert calls_in(900, set(), activities, since=600) == 900 / TICK / 3
    assert calls_in(900, set(range(180)), {}) == 180


def test_after_its_first_record_a_shard_is_asked_at_every_tick_again() -> None:
    activities: Activities = {}
    calls_in(1500, set(), activities)
    record_activity(activities, [outcome("s", records=1)], 1500.0)
    assert calls_in(60, set(), activities, since=1505) == 12


def test_a_closed_shard_and_one_behind_its_latest_position_are_always_asked() -> None:
    activities: Activities = {}
    record_activity(activities, [outcome("a"), outcome("b", at_latest=False), outcome("c")], 0.0)
    poll = due(
        [read("a", closed=True), read("b"), read("c")],
        activities,
        1.0,
        intervals=SAME_TICK,
    )
    assert asked(poll) == ["a", "b"]
    assert (poll.left_out, poll.latest_age_seconds) == (1, 1.0)
    later = due([read("c")], activities, 4.0, intervals=SAME_TICK)
    assert asked(later) == ["c"]


def test_a_tick_that_listens_asks_a_busy_shard_every_second_and_others_as_rarely_as_ticks() -> None:
    def asked_at(seconds: int) -> list[int]:
        activities: Activities = {}
        record_activity(activities, [outcome("s", records=1)], 0.0)
        times = []
        for now in map(float, range(1, seconds)):
            if due([read("s")], activities, now, LISTENING).reads:
                times.append(int(now))
                record_activity(activities, [outcome("s")], now)
        return times

    times = asked_at(1500)
    gaps = {before: later - before for before, later in itertools.pairwise(times)}

    def between(first: int, last: int) -> set[int]:
        return {gap for before, gap in gaps.items() if first <= before <= last}

    assert between(1, 8) == {1}
    assert between(11, 100) == {5}
    assert between(130, 570) == {10}
    assert between(620, 1500) == {15}


def test_a_tick_that_listens_waits_for_the_next_shard() -> None:
    activities: Activities = {}
    assert seconds_to_next(activities, 0.0, 5.0) == 5.0
    record_activity(activities, [outcome("quiet")], 0.0)
    record_activity(activities, [outcome("quiet"), outcome("busy", records=1)], 200.0)
    assert seconds_to_next(activities, 200.25, 5.0) == 0.75
    record_activity(activities, [replace(outcome("busy"), ended=True)], 201.0)
    assert seconds_to_next(activities, 201.0, 5.0) == 5.0


def test_shards_without_a_turn_come_first_in_the_next_drain() -> None:
    activities: Activities = {}
    shards = [read(name) for name in "abcd"]
    record_activity(
        activities,
        [
            outcome("a", at_latest=False),
            outcome("b", at_latest=False),
            outcome("c", at_latest=False, calls=0),
            outcome("d", at_latest=False, calls=0),
        ],
        0.0,
    )
    assert asked(due(shards, activities, 1.0)) == ["c", "d", "a", "b"]


@given(st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=400))
def test_no_shard_is_left_alone_for_longer_than_the_longest_interval(
    busy: list[set[int]],
) -> None:
    activities: Activities = {}
    reads = [read(str(n)) for n in range(6)]
    last = dict.fromkeys(range(6), 0.0)
    for tick, having in enumerate(busy):
        now = tick * TICK
        poll = due(reads, activities, now)
        found = []
        for shard_id in map(int, asked(poll)):
            last[shard_id] = now
            found.append(outcome(str(shard_id), records=int(shard_id in having)))
        record_activity(activities, found, now)
        assert all(now - at < SILENT_INTERVAL_SECONDS + TICK for at in last.values())
        assert poll.latest_age_seconds <= SILENT_INTERVAL_SECONDS
