"""Which changes count as known: each lands once, however few of them are kept in memory."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datazone_dagster.changelog.known_events import KnownEvents
from datazone_dagster.changelog.log import ChangeLog, ChangeLogSnapshot
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.event_order import order_number
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord, ChangeRecords
from tests.examples import examples

START = 1_700_000_000
FIRST = datetime.min.replace(tzinfo=timezone.utc)
LAST = datetime.max.replace(tzinfo=timezone.utc)


def record(second: int, number: int = 0) -> ChangeRecord:
    """Return a change of a second after the start, one of many in it."""
    event = f"e{second}-{number}"
    at = START + second
    image = b'{"id":{"S":"1"}}'
    return ChangeRecord(
        event_id=event,
        event_name="INSERT",
        sequence_number=order_number(at * 1_000_000 + number, event),
        created_at=at,
        keys=image,
        new_image=image,
        old_image=None,
        size_bytes=10,
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


class Drains:
    """Drains of one change log by one process, until another takes over."""

    def __init__(self, folder: Path, most: int) -> None:
        self._log = ChangeLog(Layout(str(folder)), "orders")
        self._most = most
        self.new_process()

    def new_process(self) -> None:
        self.known = KnownEvents(self._most)

    def open(self) -> ChangeLogSnapshot:
        return self._log.open_or_create()

    def land(self, *pages: Sequence[ChangeRecord]) -> None:
        log = self.open()
        unseen = self.known.begin(log).unseen
        fresh = [unseen(ChangeRecords.of(page)) for page in pages]
        log.append(1, [ShardRecords("arn:stream/1", "s", None, one, []) for one in fresh if one])
        self.known.committed(log)

    def landed(self) -> Counter[str]:
        return Counter(
            event
            for rows in self.open().rows_of_time(FIRST, LAST, [Log.EVENT_ID])
            for event in rows[Log.EVENT_ID].to_pylist()
        )


@pytest.mark.parametrize("late", [False, True])
def test_a_new_process_knows_what_landed_whatever_the_order_of_the_files(
    tmp_path: Path, late: bool
) -> None:
    every = [record(10 * n) for n in range(9)]
    drains = Drains(tmp_path, most=4)
    for batch in (every[1:8], every[:1]) if late else (every[:1], every[1:8]):
        drains.land(batch)
    drains.new_process()
    drains.land([every[8], *every[:8]])
    drains.land(every)
    assert drains.landed() == Counter(one.event_id for one in every)


def test_only_files_with_the_time_of_a_late_change_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains = Drains(tmp_path, most=100)
    minutes = [record(60 * n) for n in range(30)]
    for one in minutes:
        drains.land([one])
    drains.new_process()
    drains.land([record(60 * 30)])
    read: list[str] = []
    rows_at = ChangeLogSnapshot.rows_at

    def noted(log: ChangeLogSnapshot, *arguments: Any) -> Iterator[pa.Table]:
        for rows in rows_at(log, *arguments):
            read.extend(rows[Log.VERSION].to_pylist())
            yield rows

    monkeypatch.setattr(ChangeLogSnapshot, "rows_at", noted)
    drains.land([minutes[0], minutes[15], record(60 * 31)])
    assert len(read) == 2
    assert set(drains.landed().values()) == {1}


CHANGES = st.builds(record, st.sampled_from([0, 1, 2, 3, 30, 500, 700, 1300]), st.integers(0, 1))
BATCHES = st.lists(
    st.lists(st.lists(CHANGES, max_size=5), min_size=1, max_size=2), min_size=2, max_size=5
)


@settings(max_examples=examples(90))
@given(batches=BATCHES, most=st.integers(0, 4), taken_over=st.sets(st.integers(0, 5)))
def test_each_change_lands_once(
    batches: list[list[list[ChangeRecord]]], most: int, taken_over: set[int]
) -> None:
    again = [one for pages in batches for page in pages for one in page]
    with tempfile.TemporaryDirectory() as folder:
        drains = Drains(Path(folder), most)
        for number, pages in enumerate([*batches, [again, again]]):
            if number in taken_over:
                drains.new_process()
            drains.land(*pages)
        assert drains.landed() == Counter({one.event_id for one in again})
