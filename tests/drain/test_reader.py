"""Reading shards in turn: what counts as their tip, whose turn comes, where it stops."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

from datazone_dagster.drain.plan import plan_drain
from datazone_dagster.drain.reader import IteratorCache, ReadBudget, ShardOutcome, read_shards
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.testing import FixedClock, ScriptedStream

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)


def read(
    stream: ScriptedStream, iterators: IteratorCache, *, budget_bytes: int = 1 << 20
) -> list[ShardOutcome]:
    described = stream.describe(stream.stream_arn)
    plan = plan_drain(described, Checkpoint(), start="trim_horizon", now=NOW)
    budget = ReadBudget(
        deadline_seconds=1.0, bytes=budget_bytes, max_workers=1, monotonic=lambda: 0.0
    )
    logger = logging.getLogger(__name__)
    return read_shards(
        stream, plan.reads, iterators, budget, NOW, logger, lambda row, records, malformed: 0
    )


def test_an_expired_kept_iterator_does_not_end_at_an_empty_page_that_it_had_passed() -> None:
    clock = FixedClock()
    stream = ScriptedStream(clock=clock)
    stream.empty_page()
    iterators: IteratorCache = {}
    assert read(stream, iterators)[0].at_tip
    clock.advance(timedelta(minutes=16))
    stream.put({"id": {"S": "1"}})
    (outcome,) = read(stream, iterators)
    assert outcome.records == 1
