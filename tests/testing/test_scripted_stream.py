"""The scripted stream beyond the suite: refused arguments, and writers in several threads."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from datazone_dagster.errors import DefinitionError, StreamDisabledError
from datazone_dagster.model.protocols import utc_now
from datazone_dagster.testing import ScriptedStream
from tests.source.conformance import read_stream


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"page_records": 0}, "page_records=0"),
        ({"page_records": 1001}, "1 to 1000"),
        ({"view_type": "IMAGES"}, "KEYS_ONLY"),
    ],
)
def test_what_the_service_does_not_have_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        ScriptedStream(**arguments)


def test_a_table_has_one_enabled_stream() -> None:
    stream = ScriptedStream(view_type=None)
    with pytest.raises(StreamDisabledError, match="enable"):
        _ = stream.stream_arn
    stream.enable()
    with pytest.raises(DefinitionError, match="disable"):
        stream.enable()


def test_a_copy_goes_its_own_way() -> None:
    stream = ScriptedStream()
    stream.put({"id": {"S": "a"}})
    other = copy.deepcopy(stream)
    other.put({"id": {"S": "b"}})
    assert [len(read_stream(one)) for one in (stream, other)] == [1, 2]


def test_records_stay_in_order_when_two_threads_write() -> None:
    inside_first_put, second_put_is_done = threading.Event(), threading.Event()
    is_scripted = False

    def clock() -> datetime:
        """Hold the first put between its sequence number and its record."""
        if is_scripted and not inside_first_put.is_set():
            inside_first_put.set()
            second_put_is_done.wait(0.2)  # with the lock, the second put can't be done by then
        return utc_now()

    stream = ScriptedStream(clock=clock)
    is_scripted = True

    def second() -> None:
        assert inside_first_put.wait(30)
        stream.put({"id": {"S": "b"}})
        second_put_is_done.set()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(second)
        stream.put({"id": {"S": "a"}})
        other.result()
    numbers = [record.sequence_number for record in read_stream(stream)]
    assert len(numbers) == 2
    assert numbers == sorted(numbers)
