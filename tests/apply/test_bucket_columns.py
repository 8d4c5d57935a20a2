"""Buckets that give new attributes columns at the same time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.model.key_bucket import key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from tests.apply.test_buckets import BATCH, flow, record, rows_of, slots_of_ids


def put(layout: Layout, *changes: tuple[int, dict[str, object]]) -> None:
    """Land a batch of items with any attributes."""
    log = ChangeLog(layout, "orders").open_or_create()
    first = 10_000 * log.head
    records = [
        record(first + at, key, "x")._replace(
            new_image=json.dumps({"id": {"S": f"k{key}"}, **item}).encode()
        )
        for at, (key, item) in enumerate(changes)
    ]
    log.append(1, [ShardRecords("arn", "s", None, records)])


@pytest.mark.parametrize(
    ("of_first", "of_second"),
    [
        ({"M": {"q": {"S": "1"}}}, {"S": '{"q":"1"}'}),
        ({"S": "text"}, {"N": "5"}),
        ({"N": "5"}, {"N": "123456789012345678901234567890.5"}),
    ],
)
@pytest.mark.parametrize("starts", ["empty", "known"])
def test_buckets_that_meet_a_new_attribute_in_different_types_do_not_mix_them(
    tmp_path: Path, of_first: dict[str, object], of_second: dict[str, object], starts: str
) -> None:
    """The run of one bucket has read the columns before the other adds some, and applies later."""
    layout = Layout(str(tmp_path))
    first, second = key_buckets(2)
    slots = slots_of_ids([f"k{key}" for key in range(40)])
    ours = [key for key, slot in enumerate(slots) if first.has_some_of(slot, slot)]
    others = [key for key, slot in enumerate(slots) if second.has_some_of(slot, slot)]
    if starts == "known":
        put(layout, (ours[0], {"z": {"S": "0"}}), (others[0], {"z": {"S": "0"}}))
        for bucket in (first, second):
            apply_transform(flow("d", 2), layout, bucket=bucket)
    put(layout, (others[1], {"z": {"S": "1"}}))
    put(layout, (ours[1], {"x": of_first}))
    put(layout, (others[2], {"x": of_second}))
    done: list[str] = []

    def other(_: object) -> None:
        if not done:
            done.append(first.name)
            apply_transform(flow("d", 2), layout, bucket=first)

    apply_transform(flow("d", 2), layout, bucket=second, settings=BATCH, on_chunk=other)
    put(layout, (ours[2], {"x": of_second}), (others[3], {"x": of_first}))
    for bucket in (first, second):
        apply_transform(flow("d", 2), layout, bucket=bucket)
    apply_transform(flow("whole"), layout)
    assert rows_of(layout, "d") == rows_of(layout, "whole")
