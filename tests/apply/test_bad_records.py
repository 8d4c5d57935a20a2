"""Bad records are quarantined raw, with the reason, and never stop the stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.dataset.quarantine import Quarantine
from datazone_dagster.frame.frame import Frame
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform, drain_once, read_dataset
from datazone_dagster.source.wire import parse_page
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream

SOURCE = DynamoDBSource("orders")


@transform(
    input_mapping={"orders": Input(Stream(source=SOURCE))},
    output_mapping={"out": Output(Dataset("out"))},
)
def typed(orders: Frame) -> Frame:
    return orders.items()


def land_and_apply(stream: ScriptedStream, layout: Layout) -> list[str]:
    """Land and apply everything; return the ids in the dataset."""
    while not drain_once(SOURCE, stream, layout).caught_up:
        pass
    apply_transform(typed, layout)
    return sorted(read_dataset(layout, "out")["id"].to_pylist())


def quarantined(layout: Layout) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Quarantine(layout, "out").waiting().to_pylist()
    return rows


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"ZZ": "1"}, "an unknown type"),
        ({"S": "1", "N": "2"}, "without exactly one type"),
        ({}, "without exactly one type"),
        ("x", "without exactly one type"),
        ({"S": 5}, "a value that is not a JSON string"),
        ({"N": 5}, "a value that is not a number"),
        ({"BOOL": "yes"}, "a value that is not a JSON boolean"),
        ({"NULL": "yes"}, "not of its type"),
        ({"SS": "x"}, "a set that is not a JSON array"),
        ({"M": "x"}, "a map that is not a JSON object"),
        ({"M": {"a": {"ZZ": "1"}}}, "an unknown type"),
        ({"L": [{"S": 1}]}, "a value that is not a JSON string"),
    ],
)
def test_items_that_cannot_be_decoded(value: object, reason: str, tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    stream.put({"id": {"S": "a"}, "q": {"S": "fine"}})
    bad: Mapping[str, Any] = {"id": {"S": "b"}, "q": value}
    stream.put(bad)
    stream.put({"id": {"S": "c"}})
    assert land_and_apply(stream, layout) == ["a", "c"]
    [found] = quarantined(layout)
    assert json.loads(found["new_image"]) == bad
    assert reason in found["reason"]
    stream.put({"id": {"S": "b"}, "q": {"S": "fixed"}})
    assert land_and_apply(stream, layout) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (b'{"id": {"BOOL": true}}', "not a map of typed values"),
        (b'{"id": {"M": {}}}', "not a map of typed values"),
        (b'{"id": {"SS": "x"}}', "has type 'SS', not S, N or B"),
        (b'{"id": {"N": "one"}}', "holds not a number"),
        (b'{"id": {"B": "%%%"}}', "binary that is not base64"),
        (b'{"id": {"S": "x", "N": "1"}}', "does not have exactly one type"),
        (b'{"id": "x"}', "not a map of typed values"),
        (b'{"a": {"S": "x"}, "b": {"S": "x"}, "c": {"S": "x"}}', "3 attributes, not one or two"),
    ],
)
def test_keys_of_a_wrong_type(keys: bytes, reason: str, tmp_path: Path) -> None:
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    for name in "abc":
        stream.put({"id": {"S": name}})
    second = stream.changes[1]
    stream.rewrite(second, second._replace(keys=keys))
    assert land_and_apply(stream, layout) == ["a", "c"]
    [found] = quarantined(layout)
    assert found["keys"] == keys.decode()
    assert found["event_id"] == second.event_id
    assert reason in found["reason"]


@pytest.mark.parametrize(
    "raw",
    [
        b"17",
        b'"text"',
        b"[]",
        b"{}",
        b'{"eventName": "INSERT"}',
        b'{"eventName": "UPSERT", "dynamodb": {"SequenceNumber": "1"}}',
        b'{"eventName": "INSERT", "dynamodb": {"SequenceNumber": "1", '
        b'"ApproximateCreationDateTime": 1, "Keys": {"id": {"S": "x"}}}}',
        b'{"eventName": "INSERT", "dynamodb": {"SequenceNumber": "-7", '
        b'"ApproximateCreationDateTime": 1, "Keys": {"id": {"S": "x"}}, "NewImage": {}}}',
    ],
)
def test_json_that_is_no_stream_record(raw: bytes, tmp_path: Path) -> None:
    """Records as in a page: they pass through the parser of GetRecords bodies."""
    page = parse_page(b'{"Records": [' + raw + b"]}")
    [malformed] = page.malformed
    layout, stream = Layout(str(tmp_path)), ScriptedStream()
    stream.put({"id": {"S": "a"}})
    stream.malformed(malformed.raw)
    stream.put({"id": {"S": "c"}})
    assert land_and_apply(stream, layout) == ["a", "c"]
    [found] = quarantined(layout)
    assert found["raw"] == raw.decode()
    assert found["reason"]
