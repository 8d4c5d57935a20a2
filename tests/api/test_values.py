"""Dataset, DynamoDBSource, Stream, Input, Output: frozen, hashable, refused if invalid."""

from __future__ import annotations

import contextlib
import copy
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream
from datazone_dagster.errors import DatazoneError, DefinitionError
from datazone_dagster.sources import DynamoDBSource

SOURCE = DynamoDBSource("orders", mask={"email": "hash"})
VALUES = [
    Dataset("orders", tags=["a", "b"], partition_by=["day"], owners=["team:x"]),
    SOURCE,
    Stream(SOURCE),
    Input(Stream(SOURCE)),
    Output(Dataset("orders")),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_values_are_frozen_equal_hashable_and_copyable(value: Any) -> None:
    first = next(iter(value.__dataclass_fields__))
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(value, first, 1)
    for other in (copy.deepcopy(value), pickle.loads(pickle.dumps(value)), replace(value)):
        assert other == value
        assert hash(other) == hash(value)


def test_collections_become_tuples() -> None:
    dataset = Dataset(
        "orders", tags={"team": "data", "pii": ""}, partition_by="day", kinds={"b", "a"}
    )
    assert dataset.tags == ("team=data", "pii")
    assert dataset.partition_by == ("day",)
    assert dataset.kinds == ("a", "b")
    assert Dataset("orders").max_lag == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"id": "a/b"}, ["'a/b'"]),
        ({"id": ".."}, ["'..'"]),
        ({"id": "_changelog"}, ["'_changelog'", "start with"]),
        ({"id": ""}, ["id"]),
        ({"id": 7}, ["7"]),
        ({"mode": "upsert"}, ["mode='upsert'", "'merge', 'append'"]),
        ({"mode": "append", "deletes": "soft"}, ["append", "soft", "every event"]),
        ({"track": "status"}, ["track", "'status'", "mode='history'"]),
        ({"mode": "history", "track": "_dz_key"}, ["track", "_dz_key"]),
        ({"deletion_vectors": "never"}, ["deletion_vectors='never'", "'auto', True, False"]),
        ({"max_lag": timedelta(seconds=-1)}, ["max_lag"]),
        ({"max_lag": 300}, ["max_lag", "timedelta"]),
        ({"tags": ["a b"]}, ["'a b'"]),
        ({"tags": ["a", "a=1"]}, ["twice"]),
        ({"tags": 7}, ["tags"]),
        ({"tags": [7]}, ["tags"]),
        ({"partition_by": ["day", "day"]}, ["partition_by", "twice"]),
        ({"partition_by": "_dz_key"}, ["_dz_key"]),
        ({"owners": ["nobody"]}, ["'nobody'"]),
        ({"kinds": [str(n) for n in range(11)]}, ["kinds", "ten"]),
        ({"group_name": "a-b"}, ["group_name"]),
        ({"description": ""}, ["description"]),
    ],
)
def test_an_invalid_dataset_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        Dataset(**{"id": "orders", **options})
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"table_name": "ab"}, ["table_name", "3 to 255"]),
        ({"table_name": "a" * 256}, ["table_name"]),
        ({"table_name": "a/bc"}, ["table_name"]),
        ({"table_name": None}, ["table_name"]),
        ({"region": "US West"}, ["region", "us-west-2"]),
        ({"stream_enabled": "yes"}, ["stream_enabled"]),
        ({"endpoint_url": "localhost:8000"}, ["endpoint_url"]),
        ({"start": "yesterday"}, ["start='yesterday'", "snapshot", "trim_horizon", "latest"]),
        ({"snapshot_rcu": 0}, ["snapshot_rcu=0", "above 0"]),
        ({"snapshot_rcu": "many"}, ["snapshot_rcu='many'", "above 0"]),
        ({"snapshot_rcu": float("inf")}, ["snapshot_rcu=inf", "above 0"]),
    ],
)
def test_an_invalid_source_is_refused(options: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(DefinitionError) as caught:
        DynamoDBSource(**{"table_name": "orders", **options})
    for word in words:
        assert word in str(caught.value)


def test_credentials_in_an_endpoint_are_refused_and_not_repeated() -> None:
    for url in ("http://user:s3cret@localhost", "user:s3cret@localhost"):
        with pytest.raises(DefinitionError) as caught:
            DynamoDBSource("orders", endpoint_url=url)
        assert "s3cret" not in str(caught.value)


def test_a_stream_may_be_the_items_of_a_table() -> None:
    assert not Stream(replace(SOURCE, stream_enabled=False)).source.stream_enabled


@pytest.mark.parametrize("wrong", [None, "orders", SOURCE, DynamoDBSource])
def test_mappings_accept_their_own_types_only(wrong: Any) -> None:
    for build in (Input, Output):
        with pytest.raises(DefinitionError):
            build(wrong)
    if wrong is not SOURCE:
        with pytest.raises(DefinitionError):
            Stream(wrong)


@given(st.from_regex(r"[A-Za-z0-9_.-]{3,40}", fullmatch=True))
def test_every_table_name_gives_a_dagster_name(table_name: str) -> None:
    name = DynamoDBSource(table_name).name
    assert name.replace("_", "").isalnum() or not name.strip("_")


@given(
    st.dictionaries(
        st.sampled_from(["tags", "mode", "deletes", "partition_by", "max_lag", "owners", "kinds"]),
        st.none() | st.integers() | st.text() | st.binary() | st.lists(st.text() | st.none()),
    )
)
def test_any_arguments_are_accepted_or_raise_our_error(options: dict[str, Any]) -> None:
    with contextlib.suppress(DatazoneError):
        hash(Dataset("orders", **options))
