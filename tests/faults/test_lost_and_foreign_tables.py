"""Lost, damaged and unrecognised tables: go on from the other tables, or stop with an error."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from datazone_dagster.errors import (
    DatazoneError,
    NewerTableError,
    SourceMismatchError,
    StorageError,
    UnrecognisedTableError,
)
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, backlog, drain_once, rebuild_dataset
from datazone_dagster.testing import ScriptedStream
from tests.faults.ledger import record
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

PATHS = {
    "change log": "_changelog/orders",
    "checkpoint": "_checkpoints/orders",
    "dataset": "current",
    "tombstones": "_tombstones/current",
    "quarantine": "_quarantine/current",
}
DATASET = "current"
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


def caught_up_stream(layout: Layout) -> ScriptedStream:
    stream = ScriptedStream(shards=2, page_records=4)
    write(stream, 0)
    stream.split()
    for _ in range(3):
        tick(stream, layout)
    return stream


def assert_exactly_once(stream: ScriptedStream, layout: Layout, *, fault: str) -> None:
    for _ in range(4):
        tick(stream, layout)
    entry = record(fault, 1, ids(stream.changes), event_ids(layout))
    assert (entry.lost, entry.doubled) == (0, 0)
    assert landed_event_ids(layout) == ids(stream.changes)
    assert current_rows(layout) == expected_rows(stream.changes)


@pytest.mark.parametrize("unread", [False, True])
def test_a_lost_checkpoint_table_is_rebuilt_from_the_change_log(
    layout: Layout, unread: bool
) -> None:
    stream = caught_up_stream(layout)
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
    stream = caught_up_stream(layout)
    checkpoints = Path(layout.uri) / "_checkpoints"
    shutil.copytree(checkpoints, tmp_path / "yesterday")
    for number in range(3):
        write(stream, 100 * number)
        stream.split()
        tick(stream, layout)
    shutil.rmtree(checkpoints)
    shutil.copytree(tmp_path / "yesterday", checkpoints)
    assert_exactly_once(stream, layout, fault="checkpoint table of an older copy")


def test_a_lost_change_log_is_not_started_again(layout: Layout) -> None:
    """The checkpoint shows that there was a change log; reading on would hide a gap."""
    stream = caught_up_stream(layout)
    write(stream, 100)
    shutil.rmtree(Path(layout.uri) / "_changelog")
    with pytest.raises(StorageError, match=r"change log ends at 0.*Restore"):
        drain_once(SOURCE, stream, layout)


def test_a_dataset_is_not_applied_from_another_change_log(layout: Layout) -> None:
    """Both tables of the drain are gone, so batch numbers restart below the dataset's position."""
    stream = caught_up_stream(layout)
    for number in range(4):
        write(stream, 100 * number)
        tick(stream, layout)
    rows = current_rows(layout)
    for path in ("_changelog", "_checkpoints"):
        shutil.rmtree(Path(layout.uri) / path)
    for number in range(8):  # past the dataset's position
        write(stream, 1000 + 100 * number)
        drain_once(SOURCE, stream, layout)
        with pytest.raises(SourceMismatchError, match="made from another change log") as refused:
            apply_transform(flow, layout)
        assert "give the dataset a new id" in str(refused.value)
        with pytest.raises(SourceMismatchError, match="made from another change log"):
            backlog(SOURCE.name, DATASET, layout)  # as the check `lag` says it
        with pytest.raises(SourceMismatchError, match="made from another change log"):
            rebuild_dataset(flow, DATASET, layout)
        assert current_rows(layout) == rows


# -- something else is at the path of a table


def unrecognised_table(path: Path) -> None:
    write_deltalake(str(path), pa.table({"mine": [1, 2, 3]}))


def plain_file(path: Path) -> None:
    path.write_text("not a table")


def damaged_log(path: Path) -> None:
    for entry in (path / "_delta_log").glob("*.json"):
        entry.write_bytes(b'{"commitInfo":' + entry.read_bytes()[:40])
    for entry in (path / "_delta_log").glob("*.parquet"):
        entry.write_bytes(b"PAR1")


def emptied_entry(path: Path) -> None:
    """What a loss of power leaves of the newest commit, where nothing had put it on the disk."""
    max((path / "_delta_log").glob("*.json")).write_bytes(b"")


DAMAGES = [(damaged_log, "damaged {}, then restored"), (emptied_entry, "newest entry of {} empty")]


def fingerprint(root: Path) -> dict[str, str]:
    """Return a hash of every file below, or of the file itself."""
    files = [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file())
    return {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("put_there", [unrecognised_table, plain_file])
def test_unrecognised_data_is_refused_and_not_changed(
    layout: Layout, kind: str, put_there: Callable[[Path], None]
) -> None:
    path = Path(layout.uri) / PATHS[kind]
    path.parent.mkdir(parents=True)
    put_there(path)
    before = fingerprint(path)
    stream = ScriptedStream(shards=2)
    write(stream, 0)
    for _ in range(2):
        with pytest.raises(StorageError) as found:
            tick(stream, layout)
        assert str(path) in str(found.value)
        assert found.value.safe
        assert found.value.hint
        if put_there is unrecognised_table:
            assert isinstance(found.value, UnrecognisedTableError)
            assert kind in str(found.value)
    assert fingerprint(path) == before

    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_exactly_once(stream, layout, fault=f"{put_there.__name__.replace('_', ' ')} as {kind}")


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize(("damage", "fault"), DAMAGES)
def test_a_damaged_table_is_an_error_and_not_changed(
    layout: Layout, damage: Callable[[Path], None], fault: str, kind: str, tmp_path: Path
) -> None:
    stream = caught_up_stream(layout)
    path = Path(layout.uri) / PATHS[kind]
    shutil.copytree(path, tmp_path / "backup")
    damage(path)
    before = fingerprint(path)
    write(stream, 100)
    with pytest.raises(DatazoneError) as found:
        tick(stream, layout)
    assert str(path) in str(found.value)
    assert found.value.hint
    assert fingerprint(path) == before

    shutil.rmtree(path)
    shutil.copytree(tmp_path / "backup", path)
    assert_exactly_once(stream, layout, fault=fault.format(kind))


@pytest.mark.parametrize("kind", PATHS)
def test_a_table_of_a_newer_version_is_refused_and_not_changed(layout: Layout, kind: str) -> None:
    stream = caught_up_stream(layout)
    path = Path(layout.uri) / PATHS[kind]
    set_format(path, "2")
    before = fingerprint(path)
    write(stream, 100)
    for _ in range(2):
        with pytest.raises(NewerTableError) as found:
            tick(stream, layout)
        assert str(path) in str(found.value)
    assert fingerprint(path) == before

    set_format(path, "1")
    assert_exactly_once(stream, layout, fault=f"{kind} of a newer version")


def set_format(path: Path, number: str) -> None:
    alter = DeltaTable(path).alter
    alter.set_table_properties({"datazone.format": number}, raise_if_not_exists=False)
