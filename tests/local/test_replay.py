"""Completeness of the stream: replaying it rebuilds the table."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.examples import examples
from tests.local.stream_reading import Clients, Table, create_table

_numbers = itertools.count(1)
_ids = st.sampled_from([f"key-{n}" for n in range(6)])
_values: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.text(max_size=3).map(lambda text: {"S": text}),
        st.integers(-5, 5).map(lambda number: {"N": str(number)}),
        st.booleans().map(lambda flag: {"BOOL": flag}),
        st.binary(max_size=3).map(lambda raw: {"B": raw}),
        st.sets(st.integers(0, 3), min_size=1).map(lambda s: {"NS": [str(n) for n in s]}),
        st.just({"NULL": True}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2).map(lambda values: {"L": values}),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=2).map(lambda m: {"M": m}),
    ),
    max_leaves=4,
)
_attributes = st.dictionaries(st.sampled_from(["one", "two"]), _values, max_size=2)
_steps = st.one_of(
    st.tuples(st.just("put"), _ids, _attributes),
    st.tuples(st.just("update"), _ids, _values),
    st.tuples(st.just("delete"), _ids),
    st.tuples(st.just("split")),
    st.tuples(st.just("roll"), st.integers(0, 3)),
)


def _act(table: Table, step: tuple[Any, ...]) -> None:
    actions: dict[str, Callable[..., object]] = {
        "put": lambda item_id, attributes: table.put(item_id, **attributes),
        "update": lambda item_id, value: table.update(item_id, "SET one = :v", v=value),
        "delete": table.delete,
        "split": lambda: table.clients.admin.split(table.name),
        "roll": lambda nth: table.clients.admin.roll(table.name, _open_shards(table)[nth % 2]),
    }
    actions[step[0]](*step[1:])


def _open_shards(table: Table) -> list[str]:
    shards = table.clients.admin.shards(table.name)
    return [shard["shardId"] for shard in shards if shard["open"]]


@settings(
    max_examples=examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(_steps, max_size=25))
def test_replaying_every_shard_rebuilds_the_table(
    clients: Clients, steps: list[tuple[Any, ...]]
) -> None:
    table = create_table(clients, f"replayed-{next(_numbers)}")
    for step in steps:
        _act(table, step)

    replayed: dict[str, Any] = {}
    numbers: list[int] = []
    for record in table.records():
        change = record["dynamodb"]
        item_id = change["Keys"]["id"]["S"]
        assert replayed.get(item_id) == change.get("OldImage")  # the chain of images has no gap
        assert change.get("OldImage") != change.get("NewImage")  # no record for no change
        expected = {(False, True): "INSERT", (True, True): "MODIFY", (True, False): "REMOVE"}
        assert record["eventName"] == expected[("OldImage" in change, "NewImage" in change)]
        if "NewImage" in change:
            replayed[item_id] = change["NewImage"]
        else:
            del replayed[item_id]
        numbers.append(int(change["SequenceNumber"]))
    assert replayed == table.items()
    assert len(set(numbers)) == len(numbers)

    shards = {shard["ShardId"]: shard["SequenceNumberRange"] for shard in table.shards()}
    for shard in table.shards():
        numbers_of = shards[shard["ShardId"]]
        if "ParentShardId" in shard:
            parent = shards[shard["ParentShardId"]]
            assert int(numbers_of["StartingSequenceNumber"]) > int(parent["EndingSequenceNumber"])
    clients.dynamodb.delete_table(TableName=table.name)
