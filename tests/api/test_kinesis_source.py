from __future__ import annotations

from typing import Any

import pytest

from datazone_dagster import Stream
from datazone_dagster.api.kinesis_source import stream_name_of
from datazone_dagster.errors import DefinitionError
from datazone_dagster.sources import DynamoDBSource, KinesisSource


def test_it_is_a_source_like_any_other() -> None:
    source = KinesisSource("orders.eu", "changes", "eu-west-1", start="latest", tags=["x"])
    assert (source.table_name, source.stream_name, source.region) == (
        "orders.eu",
        "changes",
        "eu-west-1",
    )
    assert (source.name, source.start, source.stream_enabled) == ("orders_eu", "latest", True)
    assert Stream(source=source).source is source
    assert stream_name_of(source) == "changes"
    assert stream_name_of(DynamoDBSource("orders")) is None
    assert "stream_name='changes'" in repr(source)


def test_the_stream_is_part_of_its_identity() -> None:
    one = KinesisSource("orders", "changes")
    assert one == KinesisSource("orders", "changes")
    assert hash(one) == hash(KinesisSource("orders", "changes"))
    assert one != KinesisSource("orders", "others")
    assert one != DynamoDBSource("orders")
    with pytest.raises(AttributeError):
        one.stream_name = "others"  # type: ignore[misc]  # that is the point


@pytest.mark.parametrize("name", ["", "a" * 129, "a/b", "arn:aws:kinesis:x:1:stream/y", 5, None])
def test_a_stream_name_that_is_none_is_refused(name: Any) -> None:
    with pytest.raises(DefinitionError, match=r"KinesisSource\('orders'\): stream_name"):
        KinesisSource("orders", name)


def test_the_other_arguments_are_checked_as_ever() -> None:
    wrong: Any = "never"
    with pytest.raises(DefinitionError, match=r"KinesisSource\('orders'\): start"):
        KinesisSource("orders", "changes", start=wrong)
    with pytest.raises(DefinitionError, match="resync_max_items"):
        KinesisSource("orders", "changes", on_gap="resync")
