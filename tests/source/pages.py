"""Hypothesis strategies for GetRecords pages, and the records they must give."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st

_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_number = st.one_of(
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=9).map(str),
)
_binary = st.binary(max_size=8).map(lambda data: base64.b64encode(data).decode())
_scalar = st.one_of(
    st.builds(lambda v: {"S": v}, _text),
    st.builds(lambda v: {"N": v}, _number),
    st.builds(lambda v: {"B": v}, _binary),
    st.builds(lambda v: {"BOOL": v}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda v: {"SS": v}, st.lists(_text, min_size=1, max_size=3)),
    st.builds(lambda v: {"NS": v}, st.lists(_number, min_size=1, max_size=3)),
    st.builds(lambda v: {"BS": v}, st.lists(_binary, min_size=1, max_size=3)),
)
attribute_values: st.SearchStrategy[dict[str, Any]] = st.recursive(
    _scalar,
    lambda inner: st.one_of(
        st.builds(lambda v: {"L": v}, st.lists(inner, max_size=3)),
        st.builds(lambda v: {"M": v}, st.dictionaries(_text, inner, max_size=3)),
    ),
    max_leaves=6,
)
items = st.dictionaries(_text.filter(bool), attribute_values, min_size=1, max_size=4)

_epoch_seconds = st.integers(0, 4_000_000_000)
_time_literals = st.one_of(
    _epoch_seconds.map(str),
    st.tuples(_epoch_seconds, st.integers(0, 999)).map(lambda t: f"{t[0]}.{t[1]:03d}"),
    st.integers(100_000, 999_999).map(lambda n: f"{n / 100_000:.5f}E9"),
)
_identities = st.one_of(
    st.none(),
    st.just({"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}),
    st.just({"PrincipalId": "dynamodb.amazonaws.com"}),
)

_TIME_MARK = "\uf8ff-time"


class WireRecord:
    """A stream record whose creation time is written as a given JSON number."""

    def __init__(self, record: dict[str, Any], time_literal: str) -> None:
        self.record = record
        self.time_literal = time_literal

    def __repr__(self) -> str:
        return self.json()

    def json(self) -> str:
        marked = {**self.record["dynamodb"], "ApproximateCreationDateTime": _TIME_MARK}
        text = json.dumps({**self.record, "dynamodb": marked}, ensure_ascii=False)
        return text.replace(f'"{_TIME_MARK}"', self.time_literal)


@st.composite
def wire_records(draw: st.DrawFn) -> WireRecord:
    event_name = draw(st.sampled_from(["INSERT", "MODIFY", "REMOVE"]))
    stream_record: dict[str, Any] = {
        "Keys": draw(items),
        "SequenceNumber": str(draw(st.integers(10**20, 10**40 - 1))),
        "SizeBytes": draw(st.integers(0, 800_000)),
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    }
    if event_name != "REMOVE":
        stream_record["NewImage"] = draw(items)
    if event_name != "INSERT":
        stream_record["OldImage"] = draw(items)
    record: dict[str, Any] = {
        "eventID": draw(st.uuids()).hex,
        "eventName": event_name,
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-west-2",
        "dynamodb": stream_record,
    }
    if draw(st.booleans()):
        record["userIdentity"] = draw(_identities)
    return WireRecord(record, draw(_time_literals))


wire_pages = st.tuples(
    st.lists(wire_records(), max_size=4), st.one_of(st.none(), st.just("next-iterator"))
)


def body_of(records: list[WireRecord], next_iterator: str | None) -> bytes:
    last = "" if next_iterator is None else f', "NextShardIterator": {json.dumps(next_iterator)}'
    return f'{{"Records": [{", ".join(r.json() for r in records)}]{last}}}'.encode()


def an_insert(number: int = 10**20, **changes: Any) -> dict[str, Any]:
    """Return a valid record; `changes` replace members of its `dynamodb` object, None removes."""
    stream_record = {
        "ApproximateCreationDateTime": 1_700_000_000,
        "Keys": {"id": {"S": str(number)}},
        "NewImage": {"id": {"S": str(number)}, "n": {"N": "1"}},
        "SequenceNumber": str(number),
        "SizeBytes": 20,
        "StreamViewType": "NEW_AND_OLD_IMAGES",
        **changes,
    }
    return {
        "eventID": f"event-{number}",
        "eventName": "INSERT",
        "awsRegion": "us-west-2",
        "dynamodb": {name: value for name, value in stream_record.items() if value is not None},
    }
