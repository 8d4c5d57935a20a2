"""Reading shards in turn: their latest position, the order of turns, and the budget."""

from __future__ import annotations

import logging
from collections import Counter
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import plan_drain
from datazone_dagster.drain.polling import Activities, due, record_activity
from datazone_dagster.drain.reader import IteratorCache, ReadBudget, read_shards
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.testing import FixedClock, ScriptedStream

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def read(
    stream: ScriptedStream,
    iterators: IteratorCache,
    *,
    budget_bytes: int = 1 << 20,
    activities: Activities | None = None,
    at: float = 0.0,
) -> list[ShardOutcome]:
    """Read the shards in one drain; their positions are only in the cached iterators."""
    described = stream.describe(stream.stream_arn)
    plan = plan_drain(described, Checkpoint(), start="trim_horizon", now=NOW)
    activities = {} if activities is None else activities
    budget = ReadBudget(
        deadline_seconds=1.0, bytes=budget_bytes, max_workers=1, monotonic=lambda: 0.0
    )
    logger = logging.getLogger(__name__)
    poll = due(plan.reads, activities, at)
    outcomes = read_shards(
        stream, poll.reads, iterators, budget, NOW, logger, lambda row, records, malformed: 0
    )
    record_activity(activities, outcomes, at)
    return outcomes


def test_an_expired_cached_iterator_does_not_end_at_an_empty_page_that_it_had_passed() -> None:
    clock = FixedClock()
    stream = ScriptedStream(clock=clock)
    stream.empty_page()
    iterators: IteratorCache = {}
    assert read(stream, iterators)[0].at_latest
    clock.advance(timedelta(minutes=16))
    stream.put({"id": {"S": "1"}})
    (outcome,) = read(stream, iterators)
    assert outcome.records == 1


def put_into(stream: ScriptedStream, shard: int, records: int) -> None:
    """Put records with keys that belong to this shard."""
    for number in range(records):
        key = f"{shard}-{number}"
        while stream.shard_index({"id": {"S": key}}) != shard:
            key += "'"
        stream.put({"id": {"S": key}, "n": {"N": str(number)}})


def test_a_hot_shard_with_most_of_the_records_does_not_starve_the_others() -> None:
    stream = ScriptedStream(shards=10, page_records=10)
    put_into(stream, 0, 900)
    for shard in range(1, 10):
        put_into(stream, shard, 11)
    size = sum(record.size_bytes for record in stream.changes) // len(stream.changes)
    outcomes = read(stream, {}, budget_bytes=300 * size)
    assert [outcome.records for outcome in outcomes[1:]] == [11] * 9
    assert 150 < outcomes[0].records < 300


def test_more_busy_shards_than_a_drain_can_read_all_get_their_turn() -> None:
    stream = ScriptedStream(shards=20, page_records=10)
    for shard in range(20):
        put_into(stream, shard, 200)
    size = sum(record.size_bytes for record in stream.changes) // len(stream.changes)
    activities: Activities = {}
    iterators: IteratorCache = {}
    turns: Counter[str] = Counter()
    for number in range(10):
        outcomes = read(
            stream, iterators, budget_bytes=80 * size, activities=activities, at=float(number)
        )
        turns.update(one.row.shard_id for one in outcomes if one.records)
    assert len(turns) == 20
    assert max(turns.values()) - min(turns.values()) <= 2
