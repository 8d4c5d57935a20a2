"""A store without conditional writes is found out before anything is written to it."""

from __future__ import annotations

import uuid

import pytest

from datazone_dagster.delta import conditional_writes
from datazone_dagster.delta.store import TableStore
from datazone_dagster.errors import StorageError
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import SOURCE, current_rows, expected_rows, flow, order
from tests.store.proxy import Counts, Proxy
from tests.store.servers import BUCKET

MARKER = conditional_writes.MARKER


@pytest.fixture
def layout(s3_options: dict[str, str], new_process: None) -> Layout:
    """An empty lakehouse that no process has written to."""
    return Layout(f"s3://{BUCKET}/{uuid.uuid4().hex}", s3_options)


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_writes, "_proven", set())


def probes(counts: Counts) -> list[int]:
    """Answers to the requests for the marker."""
    return [one.status for one in counts.requests if MARKER in one.path]


def tick(stream: ScriptedStream, layout: Layout) -> None:
    drain_once(SOURCE, stream, layout)
    apply_transform(flow, layout)


def orders() -> ScriptedStream:
    stream = ScriptedStream()
    stream.put(order(1, "placed", 1))
    return stream


def test_a_store_that_ignores_the_condition_is_refused(layout: Layout, proxy: Proxy) -> None:
    with (
        proxy.broken("ignore condition", methods=["PUT"], times=None),
        proxy.counted() as counts,
        pytest.raises(StorageError, match="created twice") as caught,
    ):
        tick(orders(), layout)
    assert probes(counts) == [200, 200]
    assert [
        one.path for one in counts.requests if one.method == "PUT" if MARKER not in one.path
    ] == []
    assert "update this one" in caught.value.hint


def test_it_is_refused_also_where_there_are_tables(
    layout: Layout, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = orders()
    tick(stream, layout)
    landed = expected_rows(stream.changes)
    stream.put(order(2, "paid", 2))
    monkeypatch.setattr(conditional_writes, "_proven", set())
    with (
        proxy.broken("ignore condition", methods=["PUT"], times=None),
        pytest.raises(StorageError, match="created twice"),
    ):
        tick(stream, layout)
    assert current_rows(layout) == landed
    tick(stream, layout)
    assert current_rows(layout) == expected_rows(stream.changes)


def test_a_store_that_knows_no_condition_is_refused(layout: Layout, proxy: Proxy) -> None:
    layout = Layout(layout.uri, {**layout.storage_options, "max_retries": "0"})
    with (
        proxy.broken(501, code="NotImplemented", methods=["PUT"], times=None),
        pytest.raises(StorageError, match="does not implement If-None-Match"),
    ):
        tick(orders(), layout)


def test_the_proof_is_asked_for_once_and_by_one_request_from_then_on(
    layout: Layout, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = orders()
    with proxy.counted() as counts:
        tick(stream, layout)
        tick(stream, layout)
    assert probes(counts) == [200, 412]
    monkeypatch.setattr(conditional_writes, "_proven", set())
    with proxy.counted() as idle:
        drain_once(SOURCE, stream, layout)
        current_rows(layout)
    assert probes(idle) == []
    stream.put(order(2, "paid", 2))
    with proxy.counted() as writes:
        tick(stream, layout)
    assert probes(writes) == [412]


def test_a_failed_question_is_asked_again(layout: Layout, proxy: Proxy) -> None:
    store = TableStore(layout.dataset("orders"), {**layout.storage_options, "max_retries": "0"})
    with proxy.broken(500, path=MARKER), pytest.raises(OSError, match="InternalError"):
        store.put_if_absent("a", b"1")
    assert store.put_if_absent("a", b"1")
