"""A bucket that gives columns wider types rewrites the table: others that never rest make way."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.dataset.swap_fence import (
    COLUMNS,
    MakesWayError,
    fenced_until,
    make_way,
    raise_fence,
)
from datazone_dagster.model.key_bucket import KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.rows import overwrite
from tests.apply.test_buckets import flow, record, rows_of, slots_of_ids
from tests.apply.test_idle_buckets import table_of

FIRST, SECOND = key_buckets(2)
OWN = f"{COLUMNS}{FIRST.name}"


def put(layout: Layout, *changes: tuple[int, str]) -> None:
    """Land a batch of items with a number `n`, by key."""
    log = ChangeLog(layout, "orders").open_or_create()
    records = []
    for at, (key, number) in enumerate(changes):
        image = json.dumps({"id": {"S": f"k{key}"}, "n": {"N": number}}).encode()
        records.append(record(10_000 * log.head + at, key, "x")._replace(new_image=image))
    log.append(1, [ShardRecords("arn", "s", None, records)])


def key_of(bucket: KeyBucket) -> int:
    slots = slots_of_ids([f"k{key}" for key in range(20)])
    return next(key for key, slot in enumerate(slots) if bucket.has_some_of(slot, slot))


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(str(tmp_path))
    put(layout, *((key, "1") for key in range(20)))
    for bucket in (FIRST, SECOND):
        apply_transform(flow("d", 2), layout, bucket=bucket)
    return layout


def test_a_bucket_widens_columns_while_another_one_never_rests(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(layout, (key_of(FIRST), "1.5"))
    original, rewrites, others = overwrite.replace_rows, list[str](), list[int]()

    def busy(*given: Any, **named: Any) -> None:
        rewrites.append("of the whole table")
        if len(rewrites) < 9 and not others:
            others.append(len(rewrites))
            put(layout, (key_of(SECOND), str(len(rewrites))))
            apply_transform(flow("d", 2), layout, bucket=SECOND)
            others.clear()
        original(*given, **named)

    monkeypatch.setattr(overwrite, "replace_rows", busy)
    apply_transform(flow("d", 2), layout, bucket=FIRST)
    assert len(rewrites) == 2
    assert "Its other buckets wait meanwhile" in caplog.text
    assert fenced_until(table_of(layout).at, "orders", datetime.now(timezone.utc)) is None
    apply_transform(flow("d", 2), layout, bucket=SECOND)
    apply_transform(flow("whole"), layout)
    assert rows_of(layout, "d") == rows_of(layout, "whole")


def test_others_make_way_for_the_fence_that_was_raised_first(layout: Layout) -> None:
    now = datetime.now(timezone.utc)
    until = now + timedelta(minutes=1)
    table = table_of(layout)
    raise_fence(table, "orders", OWN, until, now)
    assert fenced_until(table.at, "orders", now, OWN) is None
    raise_fence(table, "orders", "a rebuild", until, now)
    raise_fence(table, "orders", OWN, until + timedelta(minutes=1), now)
    assert fenced_until(table.at, "orders", now, OWN) is None
    later = f"{COLUMNS}{SECOND.name}"
    with pytest.raises(MakesWayError, match="bucket 1-of-2 gives columns wider types"):
        make_way(table.at, table.uri, "orders", now, later)
    # When the first one has ended, the second one counts.
    after = until + timedelta(minutes=2)
    raise_fence(table, "orders", later, after + timedelta(minutes=1), until)
    raise_fence(table, "orders", OWN, after + timedelta(minutes=1), after)
    assert fenced_until(table.at, "orders", after, later) is None
    assert fenced_until(table.at, "orders", after, OWN) is not None
