"""A stream that was made again under the same ARN: sequence numbers begin again."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.column_names import Log
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.protocols import KnowsTable, StreamClient
from datazone_dagster.model.report import DrainReport
from datazone_dagster.model.shard import next_restart, restart_of, service_arn
from datazone_dagster.pipeline import (
    apply_transform,
    drain_tick,
    open_erasure,
    open_gaps,
    read_dataset,
)
from datazone_dagster.process import crash_points
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import Crash, FixedClock, ScriptedStream, crash_at
from tests.new_process import NewProcess

SOURCE = DynamoDBSource("orders")


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={
        "current": Output(Dataset(id="current")),
        "events": Output(Dataset(id="events", mode="append")),
    },
)
def flow(orders: Frame) -> dict[str, object]:
    rows = orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")
    return {"current": rows, "events": rows}


def put(stream: ScriptedStream, *keys: str, total: int) -> None:
    for key in keys:
        stream.put({"id": {"S": key}, "total": {"N": str(total)}})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lakehouse"))


def drain(client: StreamClient, layout: Layout) -> DrainReport:
    """Drain to the end, and check that one more drain finds nothing."""
    report = drain_tick(SOURCE, client, layout)
    assert report.caught_up
    again = drain_tick(SOURCE, client, layout)
    assert (again.records, again.caught_up) == (0, True)
    return report


def rows(layout: Layout) -> tuple[dict[str, str], list[tuple[str, str]]]:
    apply_transform(flow, layout)
    current = {row["id"]: row["total"] for row in read_dataset(layout, "current").to_pylist()}
    events = [(row["id"], row["total"]) for row in read_dataset(layout, "events").to_pylist()]
    return current, sorted(events)


def five_puts(layout: Layout, stream: ScriptedStream | None = None) -> ScriptedStream:
    stream = stream or ScriptedStream()
    put(stream, "a", "b", "c", "d", "e", total=1)
    drain(stream, layout)
    rows(layout)
    return stream


FIVE = [(key, "1") for key in "abcde"]


@pytest.mark.parametrize("tells_its_table", [True, False])
def test_five_puts_a_new_stream_two_puts(layout: Layout, tells_its_table: bool) -> None:
    old = five_puts(layout)
    new = ScriptedStream()
    assert new.stream_arn == old.stream_arn
    put(new, "f", "a", total=2)
    client = new if tells_its_table else NewProcess(new)
    assert isinstance(client, KnowsTable) == tells_its_table
    assert drain(client, layout).records == 2
    (gap,) = open_gaps(SOURCE.name, layout)
    assert "made again under the same ARN" in gap.reason
    current, events = rows(layout)
    assert current == {**dict(FIVE), "a": "2", "f": "2"}
    assert events == sorted([*FIVE, ("a", "2"), ("f", "2")])
    put(new, "a", total=3)
    assert drain(client, layout).records == 1
    assert rows(layout)[0]["a"] == "3"
    assert len(open_gaps(SOURCE.name, layout)) == 1


def test_the_third_stream_is_noticed_as_well(layout: Layout) -> None:
    five_puts(layout)
    for number in (2, 3, 4):
        new = ScriptedStream()
        put(new, "a", total=number)
        assert drain(new, layout).records == 1
        assert rows(layout)[0]["a"] == str(number)


def test_a_new_stream_that_has_passed_the_old_position(layout: Layout) -> None:
    """Its first records would be lost without a word, and the later ones land."""
    five_puts(layout)
    new = ScriptedStream()
    put(new, *"abcdefgh", total=2)
    assert drain(new, layout).records == 8
    assert len(rows(layout)[1]) == 13
    assert len(open_gaps(SOURCE.name, layout)) == 1


def test_other_shards_under_the_same_arn(layout: Layout) -> None:
    five_puts(layout)
    new = ScriptedStream(view_type=None)
    new._step = 7  # shard ids differ
    new.enable()
    put(new, "a", total=2)
    client = NewProcess(new)
    assert drain(client, layout).records == 1
    assert rows(layout)[0]["a"] == "2"
    assert "made again" in open_gaps(SOURCE.name, layout)[0].reason


def test_a_shard_that_was_read_to_its_end_is_open_again(layout: Layout) -> None:
    old = ScriptedStream()
    put(old, "z", total=1)
    old.split()
    five_puts(layout, old)
    new = ScriptedStream()
    put(new, "a", total=2)
    assert drain(NewProcess(new), layout).records == 1
    assert rows(layout)[0]["a"] == "2"
    assert all("made again" in gap.reason for gap in open_gaps(SOURCE.name, layout))


@pytest.mark.parametrize("point", [crash_points.AFTER_READ, crash_points.AFTER_CHECKPOINT_COMMIT])
@pytest.mark.parametrize("tells_its_table", [True, False])
def test_the_drain_that_notices_dies(layout: Layout, point: str, tells_its_table: bool) -> None:
    five_puts(layout)
    new = ScriptedStream()
    put(new, "f", "a", total=2)
    with pytest.raises(Crash), crash_at(point):
        drain(new if tells_its_table else NewProcess(new), layout)
    drain(new if tells_its_table else NewProcess(new), layout)
    assert len(open_gaps(SOURCE.name, layout)) == 1
    current, events = rows(layout)
    assert current == {**dict(FIVE), "a": "2", "f": "2"}
    assert events == sorted([*FIVE, ("a", "2"), ("f", "2")])


def test_a_lost_checkpoint_after_it(layout: Layout) -> None:
    five_puts(layout)
    new = ScriptedStream()
    put(new, "a", total=2)
    drain(new, layout)
    shutil.rmtree(layout.checkpoint(SOURCE.name))
    put(new, "b", total=2)
    assert drain(NewProcess(new), layout).records == 1
    assert len(open_gaps(SOURCE.name, layout)) == 1
    assert rows(layout)[1] == sorted([*FIVE, ("a", "2"), ("b", "2")])


def test_the_change_log_tells_the_streams_apart(layout: Layout) -> None:
    old = five_puts(layout)
    new = ScriptedStream()
    put(new, "a", total=2)
    drain(new, layout)
    log = ChangeLog(layout, SOURCE.name).open()
    assert log is not None
    arns = [
        arn
        for chunk in log.chunks(0, log.head, 1 << 20, columns=(Log.BATCH, Log.STREAM_ARN))
        for arn in chunk.rows[Log.STREAM_ARN].to_pylist()
    ]
    assert arns == [old.stream_arn] * 5 + [f"{old.stream_arn}#2"]
    assert service_arn(arns[-1]) == old.stream_arn
    assert restart_of(next_restart(arns[-1])) == 3


def test_the_same_stream_read_by_a_new_process_is_no_other_stream(layout: Layout) -> None:
    stream = five_puts(layout)
    for number in range(3):
        drain(NewProcess(stream), layout)
        put(stream, f"n{number}", total=number)
        drain(NewProcess(stream), layout)
        stream.trim_through(stream.shard_ids()[0], stream.changes[number].sequence_number)
    assert open_gaps(SOURCE.name, layout) == ()
    assert len(rows(layout)[1]) == 8


def test_a_stream_whose_records_are_all_erased_is_no_other_stream(layout: Layout) -> None:
    stream = ScriptedStream()
    put(stream, "a", total=1)
    stream.delete({"id": {"S": "a"}})
    drain(stream, layout)
    apply_transform(flow, layout)
    assert open_erasure(SOURCE, ["id=a"], layout).run().done
    assert drain(NewProcess(stream), layout).records == 0
    assert open_gaps(SOURCE.name, layout) == ()
    assert rows(layout) == ({}, [])
    later = FixedClock()
    later.advance(timedelta(seconds=1))
    new = ScriptedStream(clock=later)
    put(new, "b", total=2)
    assert drain(NewProcess(new), layout).records == 1
    assert rows(layout)[0] == {"b": "2"}


def test_masked_records_are_recognised(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAZONE_MASK_SALT", "a salt of sixteen characters")
    source = DynamoDBSource("orders", mask={"id": "hash"})
    stream = ScriptedStream()
    put(stream, "a", "b", total=1)
    drain_tick(source, stream, layout)
    assert drain_tick(source, NewProcess(stream), layout).records == 0
    assert open_gaps("orders", layout) == ()


def test_records_that_were_skipped_at_the_start_are_recognised(layout: Layout) -> None:
    """With start="latest" the change log never had them."""
    source = DynamoDBSource("orders", start="latest")
    stream = ScriptedStream()
    put(stream, "a", "b", total=1)
    drain_tick(source, stream, layout)
    assert drain_tick(source, NewProcess(stream), layout).records == 0
    assert open_gaps("orders", layout) == ()
