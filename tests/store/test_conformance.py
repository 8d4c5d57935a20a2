"""One suite for every kind of store: the folder of a table, and one flow through all tables."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from datazone_dagster.delta.remote_files import SMALL_BYTES
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import ConcurrentWriterError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import (
    apply_transform,
    drain_once,
    maintain_dataset,
    open_dataset,
    rebuild_dataset,
)
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import (
    SOURCE,
    current_rows,
    event_ids,
    expected_rows,
    flow,
    ids,
    order,
)
from tests.store.servers import BUCKET


@pytest.fixture(params=["local", "s3", pytest.param("azure", marks=pytest.mark.store)])
def lakehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Layout:
    """An empty lakehouse in each kind of store."""
    if request.param == "local":
        (tmp_path / "lake" / "orders").mkdir(parents=True)
        return Layout(str(tmp_path / "lake"))
    folder = uuid.uuid4().hex
    if request.param == "s3":
        return Layout(f"s3://{BUCKET}/{folder}", request.getfixturevalue("s3_options"))
    return Layout(f"az://{BUCKET}/{folder}", request.getfixturevalue("azure_options"))


@pytest.fixture
def store(lakehouse: Layout) -> TableStore:
    return TableStore(lakehouse.dataset("orders"), lakehouse.storage_options)


def test_a_file_is_created_once(store: TableStore) -> None:
    first = store.put_if_absent("_delta_log/1.json", b"one")
    assert first
    assert store.put_if_absent("_delta_log/1.json", b"two") is None
    assert store.read("_delta_log/1.json") == b"one"
    assert store.identity_of("_delta_log/1.json") == first


def test_of_many_writers_one_creates_the_file(store: TableStore) -> None:
    store.put_if_absent("0", b"")
    won: list[int] = []

    def write(number: int) -> None:
        if store.put_if_absent("1", str(number).encode()):
            won.append(number)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [str(number).encode() for number in won] == [store.read("1")]


def test_what_is_absent(store: TableStore) -> None:
    assert store.read("a") is None
    assert store.find("a") is None
    assert store.identity_of("a") is None
    assert store.names("a") == []
    assert store.files_below() == []
    assert store.folders() == []
    assert store.read_all(["a", "b"]) == [None, None]
    store.delete(["a", "b"])
    store.delete_all()
    with pytest.raises(FileNotFoundError):
        store.open("a")


def test_names_are_exact(store: TableStore) -> None:
    names = ["a b", "p=x%3Ay z/ü.bin", "p=1/#?.bin", "p=1/2/deep.bin", "~+&;=@"]
    for name in names:
        store.write(name, name.encode())
    assert {file.path for file in store.files_below()} == set(names)
    assert store.read_all(names) == [name.encode() for name in names]
    assert store.names("p=1") == ["#?.bin"]
    assert sorted(store.folders()) == ["p=1", "p=x%3Ay z"]
    found = store.find("p=1/2/deep.bin")
    assert found is not None
    assert found.size_bytes == len("p=1/2/deep.bin")
    store.delete(names[:2])
    assert {file.path for file in store.files_below()} == set(names[2:])
    store.delete_all()
    assert store.files_below() == []


def test_a_file_is_replaced(store: TableStore) -> None:
    store.replace("a", b"one")
    before = store.identity_of("a")
    store.replace("a", b"two!")
    assert store.read("a") == b"two!"
    assert store.identity_of("a") != before


def test_files_after_a_name(store: TableStore) -> None:
    for number in (1, 2, 3, 10):
        store.put_if_absent(f"_delta_log/{number:020}.json", b"x")
    after = store.identities_after("_delta_log", f"{2:020}.json")
    assert sorted(after) == [f"{3:020}.json", f"{10:020}.json"]
    assert after[f"{3:020}.json"] == store.identity_of(f"_delta_log/{3:020}.json")


@pytest.mark.parametrize("rows", [1000, 700_000], ids=["small", "large"])
def test_a_data_file(store: TableStore, rows: int) -> None:
    numbers = np.random.default_rng(1).integers(0, 1 << 60, rows)
    written = pa.table({"n": numbers, "m": numbers[::-1]})
    with store.open_output("p=1/a.parquet") as handle:
        pq.write_table(written, handle, compression="none", row_group_size=100_000)
    found = store.find("p=1/a.parquet")
    assert found is not None
    assert (found.size_bytes > SMALL_BYTES) == (rows > 1000)
    for size in (None, found.size_bytes):
        with store.open("p=1/a.parquet", size) as handle:
            assert pq.ParquetFile(handle).read(["m"])["m"].equals(written["m"])


def test_the_whole_flow(lakehouse: Layout) -> None:
    stream = ScriptedStream(shards=2)
    for turn in range(3):
        for number in range(8):
            status = ("placed", "paid", "hidden")[(number + turn) % 3]
            stream.put(order(number, status, 10 * turn + number))
        stream.delete({"id": {"S": f"k{turn}"}})
        drain_once(SOURCE, stream, lakehouse)
        apply_transform(flow, lakehouse)
        assert current_rows(lakehouse) == expected_rows(stream.changes)
    assert event_ids(lakehouse) == ids(stream.changes)
    rebuild_dataset(flow, "current", lakehouse)
    for dataset in flow.outputs.values():
        maintain_dataset(dataset, lakehouse)
    assert current_rows(lakehouse) == expected_rows(stream.changes)
    scanned = open_dataset(lakehouse, "events").lazy().select("eventID").collect()
    assert Counter(scanned["eventID"].to_list()) == ids(stream.changes)


def test_two_drains_at_once_land_every_change_once(lakehouse: Layout) -> None:
    stream = ScriptedStream(shards=2)
    for number in range(20):
        stream.put(order(number, "placed", number))
    barrier = threading.Barrier(2)
    lost: list[ConcurrentWriterError] = []

    def drain() -> None:
        barrier.wait()
        try:
            drain_once(SOURCE, stream, lakehouse)
        except ConcurrentWriterError as error:
            lost.append(error)

    drains = [threading.Thread(target=drain) for _ in range(2)]
    for one in drains:
        one.start()
    for one in drains:
        one.join()
    assert len(lost) < 2
    drain_once(SOURCE, stream, lakehouse)
    apply_transform(flow, lakehouse)
    assert event_ids(lakehouse) == ids(stream.changes)
