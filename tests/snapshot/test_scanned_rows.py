"""What a scanned row looks like to a function, and what each mode makes of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.api.mask import SALT_VARIABLE
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.errors import MaskError, SnapshotError
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.snapshot_state import Phase
from datazone_dagster.model.table_scan import ScannedItem
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    read_dataset,
    snapshot_source,
    want_snapshot,
)
from datazone_dagster.snapshot.scanned_records import ScannedRecords
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream
from tests.new_process import NewProcess
from tests.snapshot.flow import SOURCE, World, flow, item, key, small_flow
from tests.snapshot.scripted_table import ScriptedTable

AT = datetime(2026, 1, 1, 12, 0, 7, tzinfo=timezone.utc)
ARN = "arn:aws:dynamodb:eu-west-1:000000000000:table/orders"


def scanned(text: str) -> ScannedItem:
    return ScannedItem(json.dumps({"id": json.loads(text)["id"]}), text, len(text))


def test_a_scanned_row_is_a_record_of_its_own_kind() -> None:
    image = '{"id":{"N":"1.0"},"total":{"N":"5"}}'
    (record,) = ScannedRecords(SOURCE, 3, ARN).present([scanned(image)], AT).records
    assert record.event_name == "SNAPSHOT"
    assert (record.sequence_number, record.created_at) == (0, int(AT.timestamp()))
    assert (record.new_image, record.old_image) == (image.encode(), None)
    assert (record.region, record.view_type, record.user_type) == ("eu-west-1", "NEW_IMAGE", None)


def test_the_event_id_follows_from_epoch_key_and_kind() -> None:
    def event_id(text: str, epoch: int = 3) -> str:
        (record,) = ScannedRecords(SOURCE, epoch, ARN).present([scanned(text)], AT).records
        return record.event_id

    same = [event_id('{"id":{"N":"1.0"},"x":{"S":"a"}}'), event_id('{"id": {"N":"1"}}')]
    assert len(set(same)) == 1
    assert event_id('{"id":{"N":"2"}}') not in same
    assert event_id('{"id":{"N":"1"}}', epoch=4) not in same
    (absent,) = ScannedRecords(SOURCE, 3, ARN).absent(['{"id":{"N":"1"}}'], AT).records
    assert absent.event_id not in same
    assert (absent.event_name, absent.user_principal) == ("REMOVE", "resync_absent")


def test_masks_are_applied_and_no_id_gives_a_masked_key_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SALT_VARIABLE, "a salt of the tests")
    source = DynamoDBSource("orders", mask={"id": "hash", "email": "null"})
    image = '{"id":{"S":"secret"},"email":{"S":"me@example.com"}}'
    (record,) = ScannedRecords(source, 3, ARN).present([scanned(image)], AT).records
    assert b"secret" not in record.keys + (record.new_image or b"")
    assert b"me@example.com" not in (record.new_image or b"")
    plain = hashlib.blake2b(b"3:SNAPSHOT:2:idS6:secret", digest_size=16).hexdigest()
    assert record.event_id != plain


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={"shown": Output(Dataset(id="shown", mode="append"))},
)
def everything(orders: Frame) -> dict[str, Frame]:
    return {
        "shown": orders.select(
            "eventName as name",
            "dynamodb.SequenceNumber as number",
            "dynamodb.NewImage.total.N as total",
            "dynamodb.OldImage as old",
            "userIdentity.principalId as principal",
            "dynamodb.ApproximateCreationDateTime as at",
            "awsRegion as region",
        )
    }


def test_a_function_sees_the_fields_that_the_docs_name(tmp_path: Path) -> None:
    world = World(Layout(str(tmp_path)), everything)
    world.table.put_unseen(item(1, 5))
    world.drain()
    world.hand_over()
    (row,) = read_dataset(world.layout, "shown").to_pylist()
    assert row["name"] == "SNAPSHOT"
    assert (row["number"], row["total"], row["old"]) == ("0", "5", None)
    assert (row["principal"], row["region"]) == (None, "eu-west-1")
    assert row["at"] == world.clock.now.replace(microsecond=0) - timedelta(seconds=62)


@pytest.mark.parametrize(
    ("mode", "function"),
    [
        ("merge", lambda orders: orders.select("dynamodb.OldImage.total.N as before")),
        ("merge", lambda orders: orders.items("both").arrow()),
        ("append", lambda orders: orders.items("both")),
    ],
)
@pytest.mark.parametrize("view_type", ["NEW_IMAGE", "NEW_AND_OLD_IMAGES"])
def test_only_the_stream_decides_whether_there_are_old_images(
    tmp_path: Path,
    view_type: str,
    mode: Literal["merge", "append"],
    function: Callable[[Frame], object],
) -> None:
    reads_old = transform(
        input_mapping={"orders": Input(Stream(source=SOURCE))},
        output_mapping={"shown": Output(Dataset(id="shown", mode=mode))},
        name="reads_old",
    )(function)
    world = World(Layout(str(tmp_path)), reads_old)
    world.stream = ScriptedStream("orders", key=("id",), clock=world.clock, view_type=view_type)
    world.table = ScriptedTable(world.stream, world.clock)

    def lacks_old_images() -> list[bool]:
        reports = apply_transform(reads_old, world.layout, clock=world.clock)
        return [report.lacks_old_images for report in reports.values() if report.records]

    world.stream.put(item(1, 5))
    world.drain()
    assert lacks_old_images() == [view_type == "NEW_IMAGE"]
    world.table.put_unseen(item(2, 5))
    world.table.delete_unseen(key(1))
    found = []
    while not world.snapshot().is_over:
        world.wait()
        found += lacks_old_images()
    found += lacks_old_images()
    # Of the scanned item, and where deletes count, of the one that was gone.
    assert found == [False] * (1 if mode == "append" else 2)


def test_a_history_opens_an_interval_only_where_the_item_differs(tmp_path: Path) -> None:
    world = World(Layout(str(tmp_path)), flow)
    world.stream.put(item(1, 1))
    world.stream.put(item(2, 2))
    world.drain()
    world.apply()
    world.table.put_unseen(item(2, 9))
    world.hand_over()
    rows = sorted(
        read_dataset(world.layout, "past").to_pylist(), key=lambda row: row["_dz_version"]
    )
    found = [(row["id"], row["total"], row["_dz_is_current"]) for row in rows]
    assert sorted(found) == [("k1", "1", True), ("k2", "2", False), ("k2", "9", True)]
    (before,) = [row for row in rows if row["total"] == "2"]
    (after,) = [row for row in rows if row["total"] == "9"]
    assert before["_dz_valid_to"] == after["_dz_valid_from"] == after["_dz_event_time"]


def test_a_second_snapshot_adds_one_event_per_item_to_a_list_of_events(tmp_path: Path) -> None:
    world = World(Layout(str(tmp_path)), small_flow)
    for number in range(3):
        world.table.put_unseen(item(number))
    world.drain()
    world.hand_over()
    want_snapshot(SOURCE.name, world.layout, "resync")
    world.hand_over()
    events = read_dataset(world.layout, "events").to_pylist()
    assert sorted(row["id"] for row in events) == ["k0", "k0", "k1", "k1", "k2", "k2"]
    assert len({row["eventID"] for row in events}) == 6


MASKED = DynamoDBSource("orders", region="eu-west-1", start="snapshot", mask={"id": "hash"})


@transform(
    input_mapping={"orders": Input(Stream(source=MASKED))},
    output_mapping={"hidden": Output(Dataset(id="hidden"))},
)
def hidden(orders: Frame) -> dict[str, Frame]:
    return {"hidden": orders.select("dynamodb.Keys.id.S as id")}


def test_a_masked_key_is_stored_nowhere_not_even_to_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SALT_VARIABLE, "a salt of the tests")
    world = World(Layout(str(tmp_path)), hidden)
    for number in range(20):
        world.table.put_unseen({"id": {"S": f"secret-{number}"}})
    phases = []
    for _ in range(8):
        drain_once(MASKED, NewProcess(world.stream), world.layout, clock=world.clock)
        limit = len(world.table.pages) + 2

        def stop(limit: int = limit) -> bool:
            return len(world.table.pages) >= limit

        report = snapshot_source(
            MASKED,
            world.layout,
            world.table,
            dataset_ids=["hidden"],
            clock=world.clock,
            stop=stop,
        )
        phases.append(report.phase)
        world.clock.advance(timedelta(seconds=62))
        apply_transform(hidden, world.layout, clock=world.clock)
    assert phases[-1] is Phase.DONE
    assert Phase.SCANNING in phases
    assert len(read_dataset(world.layout, "hidden")) == 20
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"secret-" not in file.read_bytes(), file


def test_keys_that_can_not_be_asked_for_are_not_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SALT_VARIABLE, "a salt of the tests")
    world = World(Layout(str(tmp_path)), hidden)
    world.stream.put({"id": {"S": "gone"}})

    def take() -> None:
        drain_once(MASKED, NewProcess(world.stream), world.layout, clock=world.clock)
        apply_transform(hidden, world.layout, clock=world.clock)
        snapshot_source(
            MASKED, world.layout, world.table, dataset_ids=["hidden"], clock=world.clock
        )
        world.clock.advance(timedelta(seconds=62))

    take()
    with monkeypatch.context() as other:
        other.setenv(SALT_VARIABLE, "another salt of theirs")
        with pytest.raises(MaskError, match="is not the one"):
            snapshot_source(MASKED, world.layout, world.table, clock=world.clock)
    world.table.delete_unseen({"id": {"S": "gone"}})
    take()
    with pytest.raises(SnapshotError, match="hashed by the source's mask"):
        take()
    assert len(read_dataset(world.layout, "hidden")) == 1


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={"current": Output(Dataset(id="current"))},
    on_error="quarantine",
)
def without_debts(orders: Frame) -> pa.Table:
    rows = orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total").arrow()
    for total in rows["total"].to_pylist():
        if total is not None and int(total) < 0:
            raise ValueError(f"total {total}")
    return rows


def test_every_scanned_item_that_the_function_fails_on_waits_in_the_quarantine(
    tmp_path: Path,
) -> None:
    world = World(Layout(str(tmp_path)), without_debts)
    for number, total in enumerate((1, -2, 3, -4)):
        world.table.put_unseen(item(number, total))
    world.drain()
    world.hand_over()
    assert world.rows() == {"k0": "1", "k2": "3"}
    waiting = Quarantine(world.layout, "current").waiting()["keys"].to_pylist()
    assert sorted(waiting) == ['{"id":{"S":"k1"}}', '{"id":{"S":"k3"}}']
