"""Datasets with buckets: whoever applies what and when, the rows are those without buckets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.apply.chunk_size import ApplySettings
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.changelog.schema import ShardRecords
from datazone_dagster.changelog.slot_parts import BY_SLOTS
from datazone_dagster.dataset.known_position import dataset_state
from datazone_dagster.frame.frame import Frame
from datazone_dagster.items.key_slots import slots_of
from datazone_dagster.model.key_bucket import WHOLE, KeyBucket, key_buckets
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.record import ChangeRecord
from datazone_dagster.pipeline import (
    apply_transform,
    backlog,
    datasets_of_source,
    maintain_dataset,
    read_dataset,
    rebuild_dataset,
)
from datazone_dagster.process import crash_points
from datazone_dagster.rows.bucket_files import tag_in
from datazone_dagster.rows.maintenance_plan import MaintenanceSettings
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, at_point, crash_at
from tests.examples import LONG, examples

SOURCE = DynamoDBSource(table_name="orders", region="eu-west-1")
BEFORE_COMMITS = [crash_points.BEFORE_LOG_ENTRY]
DEATHS = [crash_points.BEFORE_LOG_ENTRY, crash_points.AFTER_LOG_ENTRY]
if LONG:
    BEFORE_COMMITS = [crash_points.BEFORE_DATASET_COMMIT, *BEFORE_COMMITS]
    DEATHS = list(crash_points.POINTS[4:])
BATCH = ApplySettings(chunk_bytes=1)

Change = tuple[int, str | None]
"""Number of a key, and its new value; None: the item is deleted."""


def record(number: int, key: int, value: str | None) -> ChangeRecord:
    keys = {"id": {"S": f"k{key}"}}
    image = None if value is None else json.dumps({**keys, f"a{key % 3}": {"S": value}}).encode()
    return ChangeRecord(
        event_id=f"e{number}",
        event_name="REMOVE" if value is None else "MODIFY",
        sequence_number=10**22 + number,
        created_at=1_700_000_000 + number,
        keys=json.dumps(keys).encode(),
        new_image=image,
        old_image=None,
        size_bytes=10,
        region="eu-west-1",
        view_type="NEW_AND_OLD_IMAGES",
    )


def land(layout: Layout, *batches: Sequence[Change]) -> None:
    for changes in batches:
        log = ChangeLog(layout, "orders").open_or_create()
        first = 10_000 * log.head
        records = [record(first + at, *change) for at, change in enumerate(changes)]
        log.append(1, [ShardRecords("arn", "s", None, records)])


def flow(dataset_id: str, buckets: int = 1) -> Transform:
    @transform(
        name=dataset_id,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"out": Output(Dataset(dataset_id, buckets=buckets))},
    )
    def function(orders: Frame) -> Frame:
        return orders.items()

    return function


def path_flow(dataset_id: str, buckets: int = 1) -> Transform:
    @transform(
        name=dataset_id,
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"out": Output(Dataset(dataset_id, buckets=buckets))},
    )
    def function(orders: Frame) -> Frame:
        return orders.select(
            "dynamodb.Keys.id.S as id",
            *(f"dynamodb.NewImage.a{at}.S as a{at}" for at in range(3)),
        )

    return function


def rows_of(layout: Layout, dataset_id: str) -> list[dict[str, object]]:
    rows = read_dataset(layout, dataset_id).to_pylist()
    found = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return sorted(found, key=lambda row: str(row["_dz_key"]))


CHANGES = st.lists(st.tuples(st.integers(0, 40), st.sampled_from(["x", "y", None])), min_size=1)


@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batches=st.lists(CHANGES, min_size=1, max_size=3), data=st.data(), items=st.booleans())
def test_buckets_in_any_order_and_number_give_the_rows_of_one_run(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[list[Change]],
    data: st.DataObject,
    items: bool,
) -> None:
    layout = Layout(str(tmp_path_factory.mktemp("lake")))
    make = flow if items else path_flow
    for changes in batches:
        land(layout, changes)
        of = data.draw(st.sampled_from([1, 2, 4]), "number of buckets")
        some = data.draw(st.lists(st.sampled_from(key_buckets(of)), max_size=2), "runs")
        for bucket in some:
            apply_transform(make("parts", of), layout, settings=BATCH, bucket=bucket)
    last = data.draw(st.sampled_from([1, 2, 4]), "last number of buckets")
    # A bucket without rows that runs before there is a table keeps its position in its next run.
    for bucket in key_buckets(last) * 2:
        apply_transform(make("parts", last), layout, settings=BATCH, bucket=bucket)
    apply_transform(make("whole"), layout, settings=BATCH)
    assert rows_of(layout, "parts") == rows_of(layout, "whole")
    found = backlog("orders", "parts", layout)
    assert (found.head_batch, found.records) == (len(batches), 0)
    assert datasets_of_source("orders", layout)["parts"] == len(batches)


def test_a_bucket_takes_its_own_keys_and_moves_its_own_position(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(key, "x") for key in range(50)], [(1, "y")])
    bucket = KeyBucket(2, 4)
    apply_transform(path_flow("d", 4), layout, bucket=bucket)
    keys = [str(row["id"]) for row in rows_of(layout, "d")]
    slots = slots_of_ids(keys)
    assert keys
    assert all(bucket.has_some_of(slot, slot) for slot in slots)
    assert len(keys) == sum(
        bucket.has_some_of(slot, slot) for slot in slots_of_ids([f"k{key}" for key in range(50)])
    )
    table = DeltaTable(layout.dataset("d"))
    assert table.transaction_version("apply/orders/2-of-4") == 2
    assert table.transaction_version("apply/orders") is None
    # The dataset is where the last of its buckets is.
    assert datasets_of_source("orders", layout) == {"d": 0}
    assert [backlog("orders", "d", layout, bucket=one).position for one in key_buckets(4)] == [
        0,
        2,
        0,
        0,
    ]


def operations(layout: Layout) -> list[str]:
    return [one["operation"] for one in reversed(DeltaTable(layout.dataset("d")).history())]


def slots_of_ids(ids: Sequence[str]) -> list[int]:
    return [int(slot) for slot in slots_of(pa.array([f'{{"id":{{"S":"{one}"}}}}' for one in ids]))]


def test_files_have_keys_of_one_bucket_and_a_run_makes_the_log_lay_itself_out(
    tmp_path: Path,
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(key, "x") for key in range(60)])
    for bucket in key_buckets(4):
        apply_transform(path_flow("d", 4), layout, bucket=bucket)
    table = dataset_state(layout, "d").now()
    assert table is not None
    assert sorted(str(tag_in(file)) for file in table.files) == [
        "0-63",
        "128-191",
        "192-255",
        "64-127",
    ]
    assert log_property(layout) == "4"
    # Another dataset, or a larger number, makes the ranges smaller; a smaller one leaves them.
    for buckets, ranges in ((2, "4"), (8, "8"), (64, "16"), (8, "16")):
        land(layout, [(1, "x")])
        apply_transform(path_flow("other", buckets), layout, bucket=KeyBucket(1, buckets))
        assert log_property(layout) == ranges


def log_property(layout: Layout) -> str:
    log = ChangeLog(layout, "orders").open()
    assert log is not None
    return log.properties[BY_SLOTS]


def test_a_bucket_without_changes_reaches_the_head_in_a_commit_without_rows(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(1, "x")], [(1, "y")])
    for bucket in [*key_buckets(8), *key_buckets(8)]:
        apply_transform(path_flow("d", 8), layout, bucket=bucket)
    version = DeltaTable(layout.dataset("d")).version()
    assert datasets_of_source("orders", layout) == {"d": 2}
    for bucket in key_buckets(8):
        apply_transform(path_flow("d", 8), layout, bucket=bucket)
    assert DeltaTable(layout.dataset("d")).version() == version


def test_another_bucket_that_commits_meanwhile_does_not_make_a_run_fail(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(key, "x") for key in range(40)])
    for bucket in key_buckets(2):
        apply_transform(path_flow("d", 2), layout, bucket=bucket)
    land(layout, [(key, "y" if key % 2 else None) for key in range(0, 40, 3)])
    first, second = key_buckets(2)
    told: list[str] = []
    before = operations(layout)

    def other() -> None:
        apply_transform(path_flow("d", 2), layout, bucket=second)
        told.append("second")

    with at_point(crash_points.BEFORE_LOG_ENTRY, other):
        apply_transform(path_flow("d", 2), layout, bucket=first)
    assert told == ["second"]
    apply_transform(path_flow("whole"), layout)
    assert rows_of(layout, "d") == rows_of(layout, "whole")
    # Each bucket has committed its chunk once: neither was planned again.
    assert operations(layout)[len(before) :].count("MERGE") == 2


def apply_all(layout: Layout, of: int, dataset_id: str = "d") -> None:
    for bucket in key_buckets(of):
        apply_transform(path_flow(dataset_id, of), layout, bucket=bucket)


def same_as_one_run(layout: Layout) -> bool:
    apply_transform(path_flow("whole"), layout)
    return rows_of(layout, "d") == rows_of(layout, "whole")


MANY = [(key, "x") for key in range(60)]
LATER: list[Change] = [(key, "y" if key % 2 else None) for key in range(0, 60, 3)]


@pytest.mark.parametrize("point", DEATHS)
def test_a_bucket_that_dies_at_any_point_is_applied_by_its_next_run(
    tmp_path: Path, point: str
) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    land(layout, LATER)
    first, second = key_buckets(2)
    with suppress(Crash), crash_at(point):
        apply_transform(path_flow("d", 2), layout, bucket=first)
    for bucket in (second, first):
        apply_transform(path_flow("d", 2), layout, bucket=bucket)
    assert same_as_one_run(layout)
    assert datasets_of_source("orders", layout)["d"] == 2


@pytest.mark.parametrize(
    "point", [crash_points.BEFORE_DATASET_COMMIT, crash_points.BEFORE_LOG_ENTRY]
)
@pytest.mark.parametrize("other", ["same", "of_four", *(["whole"] if LONG else [])])
def test_a_run_gives_way_to_one_with_the_same_keys(tmp_path: Path, point: str, other: str) -> None:
    """A run that was frozen wakes up after another one has done its work, and deleted rows."""
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    land(layout, [(key, "z") for key in range(60)])
    bucket = KeyBucket(1, 2)
    others = {
        "same": [bucket],
        "whole": [WHOLE],
        "of_four": list(key_buckets(4)),
    }[other]

    def do_its_work() -> None:
        land(layout, LATER)
        for one in others:
            apply_transform(path_flow("d", one.of), layout, bucket=one)

    with at_point(point, do_its_work):
        apply_transform(path_flow("d", 2), layout, bucket=bucket)
    for one in key_buckets(2):
        apply_transform(path_flow("d", 2), layout, bucket=one)
    assert same_as_one_run(layout)


@pytest.mark.parametrize(
    "point", [crash_points.BEFORE_DATASET_COMMIT, crash_points.BEFORE_LOG_ENTRY]
)
def test_buckets_that_change_the_columns_at_once_all_get_theirs(tmp_path: Path, point: str) -> None:
    layout = Layout(str(tmp_path))
    land(layout, [(0, "x"), (3, "x"), (6, "x"), (9, "x")])
    flows = {bucket: flow("d", 2) for bucket in key_buckets(2)}
    for bucket, one in flows.items():
        apply_transform(one, layout, bucket=bucket)
    land(layout, [(key, "y") for key in range(30)])  # the columns a1 and a2 are new
    first, second = flows
    with at_point(point, lambda: apply_transform(flows[second], layout, bucket=second)):
        apply_transform(flows[first], layout, bucket=first)
    apply_transform(flow("whole"), layout)
    assert rows_of(layout, "d") == rows_of(layout, "whole")
    assert len(rows_of(layout, "d")) == 30
    assert datasets_of_source("orders", layout)["d"] == 2


def test_maintenance_splits_files_of_several_buckets(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_transform(path_flow("d"), layout)
    (dataset,) = path_flow("d", 4).outputs.values()
    before = rows_of(layout, "d")
    maintain_dataset(dataset, layout, memory_budget=8 << 30)
    table = dataset_state(layout, "d").now()
    assert table is not None
    assert len({tag_in(file) for file in table.files} - {None}) == len(table.files) == 4
    assert rows_of(layout, "d") == before
    land(layout, LATER)
    apply_all(layout, 4)
    assert same_as_one_run(layout)


def test_a_rebuild_replaces_the_rows_of_every_bucket(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    land(layout, LATER)
    apply_transform(path_flow("d", 2), layout, bucket=KeyBucket(2, 2))
    rebuild_dataset(path_flow("d", 2), "d", layout)
    assert same_as_one_run(layout)
    assert [backlog("orders", "d", layout, bucket=one).position for one in key_buckets(2)] == [2, 2]
    land(layout, [(key, "z") for key in range(0, 60, 2)])
    apply_all(layout, 2)
    assert same_as_one_run(layout)


def test_a_restored_table_is_applied_again_by_each_bucket(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    version = DeltaTable(layout.dataset("d")).version()
    land(layout, LATER)
    apply_all(layout, 2)
    DeltaTable(layout.dataset("d")).restore(version)
    assert datasets_of_source("orders", layout)["d"] == 1
    apply_transform(path_flow("d", 2), layout, bucket=KeyBucket(1, 2))
    assert [backlog("orders", "d", layout, bucket=one).position for one in key_buckets(2)] == [2, 1]
    apply_transform(path_flow("d", 2), layout, bucket=KeyBucket(2, 2))
    assert same_as_one_run(layout)


def test_each_bucket_tells_that_there_are_no_old_images(tmp_path: Path) -> None:
    """The first row group of a run need not have a key of its bucket."""
    layout = Layout(str(tmp_path))
    for key in range(8):
        one = record(key, key, "x")._replace(view_type="NEW_IMAGE")
        log = ChangeLog(layout, "orders").open_or_create()
        log.append(1, [ShardRecords("arn", "s", None, [one])])

    @transform(
        name="d",
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"out": Output(Dataset("d", buckets=2))},
    )
    def function(orders: Frame) -> Frame:
        return orders.select("dynamodb.Keys.id.S as id", "dynamodb.OldImage.a0.S as before")

    for bucket in key_buckets(2):
        (report,) = apply_transform(function, layout, bucket=bucket).values()
        assert 0 < report.records < 8
        assert report.lacks_old_images


def test_a_run_frozen_longer_than_the_retention_writes_its_files_again(tmp_path: Path) -> None:
    layout = Layout(str(tmp_path))
    land(layout, MANY)
    apply_all(layout, 2)
    land(layout, LATER)
    first, second = key_buckets(2)
    often = ApplySettings(
        maintenance=MaintenanceSettings(checkpoint_commits=1, clean_every=timedelta(0))
    )
    later = datetime.now(timezone.utc) + timedelta(days=8)

    def other() -> None:
        apply_transform(
            path_flow("d", 2), layout, bucket=second, clock=lambda: later, settings=often
        )

    with at_point(crash_points.BEFORE_LOG_ENTRY, other):
        apply_transform(path_flow("d", 2), layout, bucket=first)
    assert "VACUUM END" in operations(layout)
    assert same_as_one_run(layout)
