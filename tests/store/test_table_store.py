"""Files of a table in an object store: few requests, and no request that stops the process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from pyroaring import BitMap64

from datazone_dagster.delta.read_file import rows_at
from datazone_dagster.delta.remote_files import SMALL_BYTES, FileCache
from datazone_dagster.delta.store import TableStore
from datazone_dagster.delta.transaction_log import read_snapshot
from datazone_dagster.model.layout import Layout
from tests.store.proxy import Proxy


def another_process(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> TableStore:
    """A store whose process has read and written nothing yet."""
    monkeypatch.setattr("datazone_dagster.delta.store._CACHE", FileCache())
    return TableStore(layout.uri, layout.storage_options)


def test_a_small_file_is_one_request_and_asked_for_once(
    s3_lakehouse: Layout, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TableStore(s3_lakehouse.uri, s3_lakehouse.storage_options)
    rows = pa.table({"n": np.random.default_rng(1).integers(0, 1 << 60, 50_000)})
    with proxy.counted() as written, store.open_output("a.parquet") as handle:
        pq.write_table(rows, handle)
    assert written.by_method == {"PUT": 1}
    store = another_process(s3_lakehouse, monkeypatch)
    with proxy.counted() as read:
        for _ in range(2):
            with store.open("a.parquet") as handle:
                assert pq.read_table(handle).equals(rows)
    assert read.by_method == {"GET": 1}


def test_a_large_file_is_read_by_ranges(
    s3_lakehouse: Layout, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = np.random.default_rng(1).integers(0, 1 << 60, 800_000)
    rows = pa.table({"n": numbers, "m": numbers[::-1]})
    uri, options = s3_lakehouse.uri, s3_lakehouse.storage_options
    with TableStore(uri, options).open_output("a.parquet") as handle:
        pq.write_table(rows, handle, row_group_size=100_000, compression="none")
        size_bytes = handle.tell()
    assert size_bytes > SMALL_BYTES
    store = another_process(s3_lakehouse, monkeypatch)
    with proxy.counted() as read, store.open("a.parquet", size_bytes) as handle:
        parquet = pq.ParquetFile(handle, pre_buffer=True)
        assert parquet.read_row_group(3, ["m"])["m"].equals(rows["m"][300_000:400_000])
    assert read.by_method == {"GET": 2}  # the footer and the column


def test_many_files_are_deleted_at_once(s3_lakehouse: Layout, proxy: Proxy) -> None:
    store = TableStore(s3_lakehouse.uri, s3_lakehouse.storage_options)
    names = [f"p=a%3Ab {number}/ü#?.bin" for number in range(5)]
    for name in names:
        store.write(name, b"x")
    assert [file.path for file in store.files_below()] == sorted(names)
    with proxy.counted() as deleted:
        store.delete([*names, "never there"])
    assert deleted.by_kind == {("POST", "delete many"): 1}
    assert store.files_below() == []
    assert store.read_constant(names[0]) is None


def test_paths_are_those_of_delta_rs(s3_lakehouse: Layout) -> None:
    uri, options = s3_lakehouse.uri, dict(s3_lakehouse.storage_options)
    rows = pa.table({"day": ["a:b %41#?/ü"], "n": [7]})
    write_deltalake(uri, rows, partition_by=["day"], storage_options=options)
    snapshot = read_snapshot(DeltaTable(uri, storage_options=options), options)
    schema = pa.schema([("n", pa.int64())])
    assert rows_at(snapshot, snapshot.files[0], schema, BitMap64([0]))["n"].to_pylist() == [7]
    found = [file.path for file in snapshot.store.files_below() if "_delta_log" not in file.path]
    assert found == [snapshot.files[0].path]


CALLS: dict[str, Callable[[TableStore], object]] = {
    "open": lambda store: store.open("a"),
    "read": lambda store: store.read("a"),
    "find": lambda store: store.find("a"),
    "write": lambda store: store.write("a", b"x"),
    "list": lambda store: store.files_below(),
    "delete": lambda store: store.delete(["a", "b"]),
    "put if absent": lambda store: store.put_if_absent("b", b"x"),
}


def test_other_threads_run_while_the_store_hangs(s3_lakehouse: Layout, proxy: Proxy) -> None:
    options = {**s3_lakehouse.storage_options, "timeout": "0.5s", "max_retries": "0"}
    store = TableStore(s3_lakehouse.uri, options)
    for name, call in CALLS.items():
        longest, stop = [0.0], threading.Event()

        def tick(longest: list[float] = longest, stop: threading.Event = stop) -> None:
            last = time.monotonic()
            while not stop.wait(0.01):
                now = time.monotonic()
                longest[0] = max(longest[0], now - last)
                last = now

        other = threading.Thread(target=tick)
        other.start()
        try:
            with (
                proxy.broken("hang", times=None),
                pytest.raises(OSError, match="no answer in time"),
            ):
                call(store)
        finally:
            stop.set()
            other.join()
        assert longest[0] < 0.4, name
