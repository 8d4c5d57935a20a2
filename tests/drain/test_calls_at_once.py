"""Concurrent calls: many wait for the service; one thread parses the pages and passes them on."""

from __future__ import annotations

import logging
import threading
from datetime import datetime, timezone
from functools import partial

import pytest

from datazone_dagster.drain.outcome import ShardOutcome
from datazone_dagster.drain.plan import plan_drain
from datazone_dagster.drain.reader import FEWEST_CALLS, ReadBudget, Sink, read_shards
from datazone_dagster.model.checkpoint import Checkpoint
from datazone_dagster.model.protocols import Answer
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.testing import ScriptedStream

NOW = datetime(2030, 1, 1, tzinfo=timezone.utc)
SHARDS = 8


class Watched(ScriptedStream):
    """Records how many pages were requested but are not parsed yet, and which threads parse."""

    def __init__(self, *, all_at_once: bool = False) -> None:
        super().__init__(shards=SHARDS, page_records=1)
        self.parsers: set[int] = set()
        self.not_parsed: list[int] = []
        self._asked = self._come = self._parsed = 0
        self._changed = threading.Condition()
        self._together = threading.Barrier(SHARDS) if all_at_once else None

    def ask_for_records(self, shard_iterator: str) -> Answer:
        with self._changed:
            self._asked += 1
            self.not_parsed.append(self._asked - self._parsed)
        if self._together is not None and len(self.not_parsed) <= SHARDS:
            self._together.wait(timeout=30)
        page = self.get_records(shard_iterator)
        with self._changed:
            self._come += 1
            self._changed.notify_all()
        return partial(self._take, page)

    def wait_for_another(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._come > self._parsed, timeout=30)

    def _take(self, page: RecordsPage) -> RecordsPage:
        self.parsers.add(threading.get_ident())
        with self._changed:
            self._parsed += 1
        return page


def fill(stream: ScriptedStream, records_per_shard: int) -> None:
    left = [records_per_shard] * SHARDS
    number = 0
    while any(left):
        number += 1
        key = {"id": {"S": str(number)}}
        shard = stream.shard_index(key)
        if left[shard]:
            left[shard] -= 1
            stream.put(key)


def read(stream: Watched, sink: Sink = lambda row, records, malformed: 0) -> list[ShardOutcome]:
    described = stream.describe(stream.stream_arn)
    plan = plan_drain(described, Checkpoint(), start="trim_horizon", now=NOW)
    budget = ReadBudget(deadline_seconds=1.0, bytes=1 << 30, max_workers=16, monotonic=lambda: 0.0)
    return read_shards(stream, plan.reads, {}, budget, NOW, logging.getLogger(__name__), sink)


def test_every_shard_waits_for_the_service_at_once() -> None:
    stream = Watched(all_at_once=True)
    fill(stream, 1)
    outcomes = read(stream)
    assert [outcome.records for outcome in outcomes] == [1] * SHARDS
    assert stream.parsers == {threading.get_ident()}


def test_few_calls_are_made_while_answers_come_faster_than_they_are_parsed() -> None:
    stream = Watched()
    fill(stream, 30)
    landed = 0

    def slow(row: object, records: object, malformed: object) -> int:
        nonlocal landed
        landed += 1
        if landed < 30 * SHARDS:
            stream.wait_for_another()
        return 0

    read(stream, slow)
    assert landed == 30 * SHARDS
    steady = sorted(stream.not_parsed[4 * SHARDS : 20 * SHARDS])
    assert steady[len(steady) // 2] <= FEWEST_CALLS


def test_an_exception_from_the_sink_ends_the_drain() -> None:
    stream = Watched()
    fill(stream, 5)
    taken: list[object] = []

    def full(row: object, records: object, malformed: object) -> int:
        taken.append(row)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        read(stream, full)
    assert len(taken) == 1
    assert not [one for one in threading.enumerate() if one.name.startswith("datazone-drain")]


def test_an_unexpected_exception_of_the_client_is_not_swallowed() -> None:
    class Broken(Watched):
        def ask_for_records(self, shard_iterator: str) -> Answer:
            raise ZeroDivisionError

    stream = Broken()
    fill(stream, 1)
    with pytest.raises(ZeroDivisionError):
        read(stream)
