from __future__ import annotations

import json
from decimal import Decimal
from math import floor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.model.record import NO_TIME
from datazone_dagster.source.split import split_records, text_member
from datazone_dagster.source.wire import parse_page
from tests.source.pages import WireRecord, an_insert, body_of, wire_pages


def _page(*records: object) -> bytes:
    return json.dumps({"Records": records, "NextShardIterator": "next"}).encode()


@given(wire_pages)
def test_every_record_comes_out_as_it_was_written(page: tuple[list[WireRecord], str]) -> None:
    written, next_iterator = page
    body = body_of(written, next_iterator)

    read = parse_page(body)

    assert (read.next_iterator, read.malformed, read.body_bytes) == (next_iterator, [], len(body))
    assert len(read.records) == len(written)
    for ours, theirs in zip(read.records, written, strict=True):
        record, stream_record = theirs.record, theirs.record["dynamodb"]
        assert ours.event_id == record["eventID"]
        assert ours.event_name == record["eventName"]
        assert ours.region == "us-west-2"
        assert ours.view_type == "NEW_AND_OLD_IMAGES"
        assert ours.sequence_number == int(stream_record["SequenceNumber"])
        assert ours.size_bytes == stream_record["SizeBytes"]
        assert ours.created_at == floor(Decimal(theirs.time_literal))
        identity = record.get("userIdentity") or {}
        assert ours.user_type == identity.get("Type")
        assert ours.user_principal == identity.get("PrincipalId")
        # Equal byte for byte, not only once parsed.
        assert ours.keys == json.dumps(stream_record["Keys"], ensure_ascii=False).encode()
        for image, name in ((ours.new_image, "NewImage"), (ours.old_image, "OldImage")):
            expected = stream_record.get(name)
            if expected is None:
                assert image is None
            else:
                assert image == json.dumps(expected, ensure_ascii=False).encode()


def test_an_image_keeps_its_formatting() -> None:
    image = b'{ "n" : {"N":"1.50"},\n "s":{"S":"\\u00e9"} }'
    body = _page(an_insert()).replace(
        json.dumps(an_insert()["dynamodb"]["NewImage"]).encode(), image
    )
    assert parse_page(body).records[0].new_image == image


_BROKEN: list[tuple[str, Any]] = [
    ("`SequenceNumber`", an_insert(7, SequenceNumber=None)),
    ("`Keys`", an_insert(7, Keys=None)),
    ("Keys is empty", an_insert(7, Keys={})),
    ("Keys is not an object", an_insert(7, Keys=[1])),
    ("NewImage is not an object", an_insert(7, NewImage="x")),
    ("OldImage is not an object", an_insert(7, OldImage=[])),
    ("INSERT without NewImage", an_insert(7, NewImage=None)),
    ("Expected `str`, got `int`", an_insert(7, SequenceNumber=7)),
    ("is not a number", an_insert(7, SequenceNumber="-7")),
    ("is not a number", an_insert(7, SequenceNumber="\u0667")),
    ("is not a number", an_insert(7, SequenceNumber="1" * 41)),
    ("is not a number", an_insert(7, SequenceNumber="")),
    ("is not a time", an_insert(7, ApproximateCreationDateTime=-1)),
    ("is not a time", an_insert(7, ApproximateCreationDateTime=1e300)),
    ("Expected `float | null`, got `str`", an_insert(7, ApproximateCreationDateTime="now")),
    ("Invalid enum value 'UPSERT'", {**an_insert(7), "eventName": "UPSERT"}),
    ("`eventName`", {"dynamodb": an_insert(7)["dynamodb"]}),
    ("`dynamodb`", {"eventName": "INSERT"}),
    ("at `$.userIdentity`", {**an_insert(7), "userIdentity": "root"}),
    ("Expected `object`", 5),
    ("Expected `object`", None),
]


@pytest.mark.parametrize(("reason", "broken"), _BROKEN)
def test_a_bad_record_is_separated_and_its_neighbours_stay(reason: str, broken: Any) -> None:
    page = parse_page(_page(an_insert(1), broken, an_insert(2)))

    assert [record.sequence_number for record in page.records] == [1, 2]
    assert page.next_iterator == "next"
    (bad,) = page.malformed
    assert reason in bad.reason
    assert json.loads(bad.raw) == broken


def test_a_bad_record_still_has_its_sequence_number() -> None:
    page = parse_page(_page(an_insert(7, NewImage=None), an_insert(8, SequenceNumber=None)))
    assert [bad.sequence_number for bad in page.malformed] == [7, None]


def test_bytes_that_are_not_utf8_spoil_one_record_only() -> None:
    body = _page(an_insert(1), an_insert(7, NewImage={"s": {"S": "MARK"}}), an_insert(2))
    page = parse_page(body.replace(b"MARK", b"\xff\xfe"))

    assert [record.sequence_number for record in page.records] == [1, 2]
    assert b"\xff\xfe" in page.malformed[0].raw
    assert page.malformed[0].sequence_number == 7


def test_a_lone_surrogate_spoils_one_record_only() -> None:
    # msgspec refuses the full page because of it: the shard would be stuck for good.
    body = _page(an_insert(1), an_insert(7, NewImage={"s": {"S": "MARK"}}), an_insert(2))
    page = parse_page(body.replace(b"MARK", b"\\ud800"))

    assert [record.sequence_number for record in page.records] == [1, 2]
    assert b"\\ud800" in page.malformed[0].raw
    assert page.malformed[0].sequence_number == 7
    assert page.next_iterator == "next"


@pytest.mark.parametrize("absent", [{}, {"userIdentity": None}])
def test_no_user_identity(absent: dict[str, Any]) -> None:
    record = parse_page(_page({**an_insert(), **absent})).records[0]
    assert (record.user_type, record.user_principal) == (None, None)


@pytest.mark.parametrize(
    "identity",
    [
        {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},
        {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
    ],
)
def test_a_ttl_delete_is_recognised_in_either_spelling(identity: dict[str, str]) -> None:
    removal = {**an_insert(NewImage=None), "eventName": "REMOVE", "userIdentity": identity}
    record = parse_page(_page(removal)).records[0]
    assert (record.user_type, record.user_principal) == ("Service", "dynamodb.amazonaws.com")
    assert record.new_image is None


def test_null_images_are_absent() -> None:
    body = _page(an_insert(OldImage={"x": {"S": "MARK"}}))
    body = body.replace(b'{"x": {"S": "MARK"}}', b"null")
    assert parse_page(body).records[0].old_image is None


def test_end_of_shard_with_records() -> None:
    page = parse_page(json.dumps({"Records": [an_insert(1)]}).encode())
    assert page.next_iterator is None
    assert len(page.records) == 1


def test_empty_page_is_not_the_end() -> None:
    page = parse_page(b'{"NextShardIterator":"next","Records":[]}')
    assert (page.records, page.next_iterator) == ([], "next")


def nested(levels: int) -> str:
    return '{"M":{"a":' * levels + '{"S":"[{\\"x}]"}' + "}}" * levels


@pytest.mark.parametrize("levels", [900, 100_000])
@pytest.mark.parametrize("iterator", ["next", None])
def test_a_record_nested_too_deep_spoils_only_itself(levels: int, iterator: str | None) -> None:
    image = {"id": {"S": "]},{[\\"}, "d": "DEEP"}
    records = [an_insert(1), an_insert(7, NewImage=image), an_insert(2)]
    body = json.dumps({"NextShardIterator": iterator, "Records": records})
    page = parse_page(body.replace('"DEEP"', nested(levels)).encode())
    assert [record.sequence_number for record in page.records] == [1, 2]
    assert page.next_iterator == iterator
    (bad,) = page.malformed
    assert (bad.sequence_number, "nested too deep" in bad.reason) == (7, True)
    assert bad.raw == json.dumps(records[1]).replace('"DEEP"', nested(levels)).encode()


@given(st.lists(wire_pages, max_size=1))
def test_a_page_is_split_as_a_parser_splits_it(pages: list[tuple[list[WireRecord], str]]) -> None:
    written, next_iterator = pages[0] if pages else ([], "next")
    body = body_of(written, next_iterator)
    found = split_records(body)
    assert found is not None
    envelope, records = found
    assert json.loads(envelope) == {**json.loads(body), "Records": []}
    assert [json.loads(record) for record in records] == json.loads(body)["Records"]
    for record in records:
        number = json.loads(record)["dynamodb"]["SequenceNumber"]
        assert text_member(record, "dynamodb", "SequenceNumber") == number


@pytest.mark.parametrize(
    "body",
    [
        f'{{"Records":[{{"a":{nested(900)}}}',
        f'{{"Records":[],"NextShardIterator":{nested(900)}}}',
        f'{{"x":{nested(900)}}}',
        f"[{nested(900)}]",
    ],
)
def test_deep_nesting_elsewhere_is_refused(body: str) -> None:
    with pytest.raises(ServiceUnavailableError, match="No position moved"):
        parse_page(body.encode())


@pytest.mark.parametrize(
    ("body", "next_iterator"),
    [
        (b'{"NextShardIterator": "next"}', "next"),
        (b'{"NextShardIterator": "next", "Records": null}', "next"),
        (b'{"NextShardIterator": null}', None),
        (b'{"Records": []}', None),
    ],
)
def test_records_are_optional(body: bytes, next_iterator: str | None) -> None:
    page = parse_page(body)
    assert (page.records, page.next_iterator, page.malformed) == ([], next_iterator, [])


@pytest.mark.parametrize("absent", [{}, {"ApproximateCreationDateTime": None}])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_the_time_of_a_record_is_optional(absent: dict[str, Any], one_by_one: bool) -> None:
    record = an_insert(7)
    del record["dynamodb"]["ApproximateCreationDateTime"]
    record["dynamodb"] |= absent
    page = parse_page(_page(an_insert(1), record, *([5] if one_by_one else [])))
    assert [record.sequence_number for record in page.records] == [1, 7]
    assert page.records[0].created_at != NO_TIME
    assert page.records[1].created_at == NO_TIME


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>proxy</html>",
        b'{"Records": [',
        b"[]",
        b"null",
        b'{"Records": 5}',
        b'{"Records": [], "NextShardIterator": 5}',
        b"{}",  # would read as the end of the shard
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_body_that_is_not_an_answer_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceUnavailableError, match=r"of t: the response .*No position"):
        parse_page(body, "GetRecords of t")
