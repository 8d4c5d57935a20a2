"""A table of ours is lost, damaged, or not ours: go on from the others, or say so and stop."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from datazone_dagster.errors import DatazoneError, StorageError, UnrecognisedTableError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.testing import ScriptedStream
from tests.faults.ledger import note
from tests.faults.orders import (
    SOURCE,
    current_rows,
    event_ids,
    expected_rows,
    flow,
    ids,
    landed_event_ids,
    order,
)

PLACES = {
    "change log": "_changelog/orders",
    "checkpoint": "_checkpoints/orders",
    "dataset": "current",
    "tombstones": "_tombstones/current",
    "quarantine": "_quarantine/current",
}
DRAINED = ("change log", "checkpoint")


def write(stream: ScriptedStream, start: int) -> None:
    for number in range(start, start + 12):
        stream.put(order(number % 5, ("placed", "hidden", "paid")[number % 3], number))
        if number % 4 == 3:
            stream.delete({"id": {"S": f"k{number % 5}"}})
    stream.malformed(f'{{"no": {start}}}'.encode())


def tick(stream: ScriptedStream, layout: Layout) -> None:
    drain_once(SOURCE, stream, layout)
    apply_transform(flow, layout)


def settled_world(layout: Layout) -> ScriptedStream:
    stream = ScriptedStream(shards=2, page_records=4)
    write(stream, 0)
    stream.split()
    for _ in range(3):
        tick(stream, layout)
    return stream


def assert_exactly_once(stream: ScriptedStream, layout: Layout, *, fault: str) -> None:
    for _ in range(4):
        tick(stream, layout)
    entry = note(fault, 1, ids(stream.changes), event_ids(layout))
    assert (entry.lost, entry.doubled) == (0, 0)
    assert landed_event_ids(layout) == ids(stream.changes)
    assert current_rows(layout) == expected_rows(stream.changes)


@pytest.mark.parametrize("unread", [False, True])
def test_a_lost_checkpoint_table_is_rebuilt_from_the_change_log(
    layout: Layout, unread: bool
) -> None:
    stream = settled_world(layout)
    for number in range(3):
        write(stream, 100 * number)
        stream.roll() if number % 2 else stream.split()
        if not unread:
            drain_once(SOURCE, stream, layout)
    shutil.rmtree(Path(layout.uri) / "_checkpoints")
    report = drain_once(SOURCE, stream, layout)
    assert not report.gaps
    write(stream, 1000)
    assert_exactly_once(stream, layout, fault="checkpoint table lost")


def test_a_checkpoint_table_from_yesterday_is_only_behind(layout: Layout, tmp_path: Path) -> None:
    stream = settled_world(layout)
    checkpoints = Path(layout.uri) / "_checkpoints"
    shutil.copytree(checkpoints, tmp_path / "yesterday")
    for number in range(3):
        write(stream, 100 * number)
        stream.split()
        tick(stream, layout)
    shutil.rmtree(checkpoints)
    shutil.copytree(tmp_path / "yesterday", checkpoints)
    assert_exactly_once(stream, layout, fault="checkpoint table of an older copy")


def test_a_lost_change_log_is_not_begun_anew(layout: Layout) -> None:
    """Its checkpoint says that there was one; reading on would leave a hole in silence."""
    stream = settled_world(layout)
    write(stream, 100)
    shutil.rmtree(Path(layout.uri) / "_changelog")
    with pytest.raises(StorageError, match=r"change log ends at 0.*Restore"):
        drain_once(SOURCE, stream, layout)


def test_a_dataset_is_not_applied_to_from_another_change_log(layout: Layout) -> None:
    """Both tables of the drain are gone: batch numbers begin anew under the dataset."""
    stream = settled_world(layout)
    for number in range(4):
        write(stream, 100 * number)
        tick(stream, layout)
    rows = current_rows(layout)
    for place in ("_changelog", "_checkpoints"):
        shutil.rmtree(Path(layout.uri) / place)
    drain_once(SOURCE, stream, layout)
    with pytest.raises(StorageError, match=r"has applied batch \d+, but its change log ends at"):
        apply_transform(flow, layout)
    assert current_rows(layout) == rows


# -- something else stands there


def foreign_table(path: Path) -> None:
    write_deltalake(str(path), pa.table({"mine": [1, 2, 3]}))


def plain_file(path: Path) -> None:
    path.write_text("not a table")


def damaged_log(path: Path) -> None:
    for entry in (path / "_delta_log").glob("*.json"):
        entry.write_bytes(b'{"commitInfo":' + entry.read_bytes()[:40])
    for entry in (path / "_delta_log").glob("*.parquet"):
        entry.write_bytes(b"PAR1")


def fingerprint(root: Path) -> dict[str, str]:
    """Every file below, or the file itself."""
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("kind", PLACES)
@pytest.mark.parametrize("put_there", [foreign_table, plain_file])
def test_what_is_not_ours_is_refused_and_left_as_it_is(
    layout: Layout, kind: str, put_there: Callable[[Path], None]
) -> None:
    place = Path(layout.uri) / PLACES[kind]
    place.parent.mkdir(parents=True)
    put_there(place)
    before = fingerprint(place)
    stream = ScriptedStream(shards=2)
    write(stream, 0)
    for _ in range(2):
        with pytest.raises(StorageError) as found:
            tick(stream, layout)
        assert str(place) in str(found.value)
        assert found.value.safe
        assert found.value.hint
        if put_there is foreign_table:
            assert isinstance(found.value, UnrecognisedTableError)
            assert kind in str(found.value)
    assert fingerprint(place) == before

    shutil.rmtree(place) if place.is_dir() else place.unlink()
    assert_exactly_once(stream, layout, fault=f"{put_there.__name__.replace('_', ' ')} as {kind}")


@pytest.mark.parametrize("kind", PLACES)
def test_a_damaged_table_is_an_error_and_left_as_it_is(
    layout: Layout, kind: str, tmp_path: Path
) -> None:
    stream = settled_world(layout)
    place = Path(layout.uri) / PLACES[kind]
    shutil.copytree(place, tmp_path / "backup")
    damaged_log(place)
    before = fingerprint(place)
    write(stream, 100)
    with pytest.raises(DatazoneError) as found:
        tick(stream, layout)
    assert str(place) in str(found.value)
    assert found.value.hint
    assert fingerprint(place) == before

    shutil.rmtree(place)
    shutil.copytree(tmp_path / "backup", place)
    assert_exactly_once(stream, layout, fault=f"damaged {kind}, then restored")
