"""Bodies of Kinesis that no emulator sends."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.model.event_order import first_order_digits, order_number
from datazone_dagster.model.record import RecordsPage
from datazone_dagster.model.version import SEQUENCE_DIGITS
from datazone_dagster.source.kinesis_wire import parse_kinesis_page

FROM_THE_SERVICE = (
    '{"awsRegion":"us-east-1","eventID":"ad89cfbe-524e-4f20-bb70-275bf178961a",'
    '"eventName":"MODIFY","userIdentity":null,"recordFormat":"application/json",'
    '"tableName":"orders","dynamodb":{"ApproximateCreationDateTime":1654699573622,'
    '"Keys":{"id":{"S":"1"}},"NewImage":{"id":{"S":"1"},"binaryData":{"B":"RWdJSWV3PT0="}},'
    '"OldImage":{"id":{"S":"1"},"binaryData":{"B":"RXdJSWV3PT0="}},"SizeBytes":37},'
    '"eventSource":"aws:dynamodb"}'
)
"""As a reader of the service has reported it; the binary values are four bytes each."""


def page_of(*data: str | bytes, **members: Any) -> RecordsPage:
    records = [
        {
            "SequenceNumber": str(10**55 + number),
            "ApproximateArrivalTimestamp": 1654699574.1,
            "Data": base64.b64encode(one.encode() if isinstance(one, str) else one).decode(),
            "PartitionKey": "x",
        }
        for number, one in enumerate(data)
    ]
    body = {"Records": records, "NextShardIterator": "next", "MillisBehindLatest": 0, **members}
    return parse_kinesis_page(json.dumps(body).encode(), "orders")


def changed(**members: Any) -> str:
    record = json.loads(FROM_THE_SERVICE)
    for name, value in members.items():
        if name in record:
            record[name] = value
        else:
            record["dynamodb"][name] = value
    return json.dumps({name: value for name, value in record.items() if value != "absent"})


def test_a_record_of_the_service() -> None:
    page = page_of(FROM_THE_SERVICE)
    (record,) = page.records
    assert json.loads(record.new_image or b"")["binaryData"] == {"B": "EgIIew=="}
    assert base64.b64decode("EgIIew==") == bytes([18, 2, 8, 123])
    assert record.created_at == 1654699573
    assert page.coarse == 1
    assert (page.next_iterator, page.behind_milliseconds) == ("next", 0)
    assert page.position == record.position == 10**55


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"eventID": ""}, "eventID is empty"),
        ({"eventID": "absent"}, "eventID"),
        ({"tableName": "absent"}, "tableName"),
        ({"NewImage": None}, "without NewImage"),
        ({"Keys": {}}, "Keys is empty"),
        ({"ApproximateCreationDateTime": -1}, "not a time"),
        ({"ApproximateCreationDateTime": 10**18}, "not a time"),
        ({"ApproximateCreationDateTimePrecision": "SECOND"}, "SECOND"),
        ({"NewImage": {"id": {"S": "1"}, "b": {"B": "EgI"}}}, "base64 twice"),
        ({"NewImage": {"id": {"S": "1"}, "b": {"B": "/9j/"}}}, "base64 twice"),
        ({"NewImage": {"id": {"S": "1"}, "b": {"B": 5}}}, "base64 twice"),
    ],
)
def test_what_breaks_a_rule_is_malformed_and_the_others_stay(
    members: dict[str, Any], reason: str
) -> None:
    page = page_of(FROM_THE_SERVICE, changed(**members), FROM_THE_SERVICE)
    assert len(page.records) == 2
    (bad,) = page.malformed
    assert reason in bad.reason
    assert page.position == 10**55 + 2


def test_a_malformed_record_keeps_its_order_if_that_can_be_read() -> None:
    good = page_of(FROM_THE_SERVICE).records[0]
    (bad,) = page_of(changed(NewImage=None)).malformed
    assert bad.sequence_number == good.sequence_number
    for members in ({"eventID": 5}, {"ApproximateCreationDateTime": -1}):
        (bad,) = page_of(changed(**members)).malformed
        assert bad.sequence_number is None


def test_what_breaks_a_rule_in_another_table_is_of_no_concern() -> None:
    page = page_of(changed(tableName="customers", eventID=5))
    assert (page.others, page.malformed, list(page.records)) == (1, [], [])


def test_nesting_without_an_end_is_malformed() -> None:
    deep = FROM_THE_SERVICE.replace('{"S":"1"}', '{"L":[' * 3000 + "]}" * 3000)
    (bad,) = page_of(deep).malformed
    assert "nested too deep" in bad.reason


@pytest.mark.parametrize(
    "body",
    [b"{}", b"", b'{"Records":[{"Data":"*","SequenceNumber":"1"}]}', b'{"Records":5}', b"\xff"],
)
def test_a_body_that_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises(ServiceUnavailableError):
        parse_kinesis_page(body, "orders")


@pytest.mark.parametrize("number", ["-1", "x", "1" * 130, ""])
def test_a_position_that_is_no_number_is_refused(number: str) -> None:
    envelope = {"SequenceNumber": number, "Data": ""}
    with pytest.raises(ServiceUnavailableError):
        parse_kinesis_page(json.dumps({"Records": [envelope]}).encode(), "orders")


def test_order_numbers_sort_by_time_then_by_id() -> None:
    time = 1_700_000_000_000_000
    first, second = sorted([order_number(time, "a"), order_number(time, "b")])
    assert first < second < order_number(time + 1, "a")
    assert order_number(time, "a") == order_number(time, "a")
    for microseconds in (0, time, 253_402_300_799_999_999):
        digits = f"{order_number(microseconds, 'a'):0{SEQUENCE_DIGITS}d}"
        assert len(digits) == SEQUENCE_DIGITS
        assert first_order_digits(microseconds) <= digits < first_order_digits(microseconds + 1)
