"""A store that hangs: each step gives up after one request, and the other threads go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from datazone_dagster.delta.store_access import delta_rs_options, object_store
from datazone_dagster.delta.time_limits import REQUESTS, limited
from datazone_dagster.errors import StoreUnavailableError
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.store_options import seconds
from datazone_dagster.pipeline import apply_transform, drain_once
from datazone_dagster.testing import ScriptedStream
from tests.faults.orders import SOURCE, current_rows, expected_rows, flow, order
from tests.store.proxy import Proxy

TICK_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 1.0


@contextmanager
def other_thread_runs() -> Iterator[None]:
    """Fail if another thread of the process stood still for a while."""
    longest, stop = [0.0], threading.Event()

    def count() -> None:
        last = time.monotonic()
        while not stop.wait(0.01):
            now = time.monotonic()
            longest[0], last = max(longest[0], now - last), now

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert longest[0] < LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(
    "method", [pytest.param(one, marks=pytest.mark.store) for one in ("GET", "HEAD")] + ["PUT"]
)
def test_a_tick_and_a_run_give_up_after_one_request(
    s3_lakehouse: Layout, proxy: Proxy, method: str
) -> None:
    options = {**s3_lakehouse.storage_options, "timeout": "1500ms", "retry_timeout": "1s"}
    layout = replace(s3_lakehouse, storage_options=options)
    stream = ScriptedStream()
    steps: list[Callable[[], object]] = [
        lambda: drain_once(SOURCE, stream, layout),
        lambda: apply_transform(flow, layout),
    ]
    for number in range(3):
        stream.put(order(number, "placed", number))
        for step in steps:
            step()
    for step in steps:
        stream.put(order(7, "placed", 7))
        proxy.break_requests("hang", methods=[method], times=None)
        error: StoreUnavailableError | None = None
        with other_thread_runs(), proxy.counted() as counts:
            try:
                step()
            except StoreUnavailableError as caught:
                error = caught
        assert proxy.heal() == (0 if error is None else 1)
        assert (error is None) == (method not in counts.by_method)
        assert error is None or "no answer in time" in error.what
        step()
    apply_transform(flow, layout)
    assert current_rows(layout) == expected_rows(stream.changes)


def test_the_limits_leave_a_tick_time_to_report() -> None:
    longest = max(
        seconds(REQUESTS["timeout"]),
        seconds(REQUESTS["retry_timeout"]) + seconds(REQUESTS["backoff_config.max_backoff"]),
    )
    assert longest + seconds(REQUESTS["connect_timeout"]) < TICK_SECONDS
    assert seconds(REQUESTS["timeout"]) > seconds(REQUESTS["retry_timeout"])  # no second wait


def test_the_options_of_the_user_win() -> None:
    given = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    given["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
    assert delta_rs_options("s3://lake/t", given)["timeout"] == REQUESTS["timeout"]
    assert delta_rs_options("s3://lake/t", {**given, "timeout": "3s"})["timeout"] == "3s"
    assert delta_rs_options("/lake/t", {}) == {}
    store = object_store("s3://lake/t", {**given, "timeout": "3s"})
    assert getattr(store, "client_options", {})["timeout"] == "3s"
    assert limited({"timeout": "3s"})["connect_timeout"] == REQUESTS["connect_timeout"]
