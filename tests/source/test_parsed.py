from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings

from datazone_dagster.errors import ServiceUnavailableError
from datazone_dagster.model.record import ChangeRecord, RecordsPage
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.parsed import page_from_parsed
from datazone_dagster.source.session import Clients
from tests.source.pages import WireRecord, an_insert, body_of, wire_pages
from tests.source.scripted import Answer, ScriptedService, ok


def _meaning(record: ChangeRecord) -> ChangeRecord:
    """Return the record with its JSON in one formatting."""

    def plain(text: bytes | None) -> bytes | None:
        return None if text is None else json.dumps(json.loads(text), sort_keys=True).encode()

    return record._replace(
        keys=plain(record.keys) or b"",
        new_image=plain(record.new_image),
        old_image=plain(record.old_image),
    )


def _both(service: ScriptedService, clients: Clients, body: bytes) -> list[RecordsPage]:
    service.script("GetRecords", Answer(body))
    return [
        BotoStreamClient("t", clients, raw_pages=raw).get_records("iterator")
        for raw in (True, False)
    ]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(page=wire_pages)
def test_both_ways_read_the_same_page(
    service: ScriptedService, clients: Clients, page: tuple[list[WireRecord], str | None]
) -> None:
    raw, parsed = _both(service, clients, body_of(*page))
    assert len(raw.records) == len(page[0])
    assert [_meaning(r) for r in raw.records] == [_meaning(r) for r in parsed.records]
    assert raw._replace(records=[]) == parsed._replace(records=[])


def test_both_ways_find_the_same_malformed_records(
    service: ScriptedService, clients: Clients
) -> None:
    records = [an_insert(1), an_insert(7, Keys=None), {**an_insert(8), "eventName": "UPSERT"}]
    body = json.dumps({"Records": records}).encode()
    for page in _both(service, clients, body):
        assert [record.sequence_number for record in page.records] == [1]
        assert [bad.sequence_number for bad in page.malformed] == [7, 8]
        assert page.next_iterator is None


def test_binary_is_base64_again(service: ScriptedService, clients: Clients) -> None:
    image = {"id": {"B": "/wA="}, "set": {"BS": ["AAE=", "/w=="]}}
    body = json.dumps({"Records": [an_insert(1, NewImage=image)]}).encode()
    for page in _both(service, clients, body):
        assert json.loads(page.records[0].new_image or b"") == image


def test_an_answer_without_records_is_not_the_end_of_a_shard(
    service: ScriptedService, clients: Clients
) -> None:
    service.script("GetRecords", ok({}))
    for raw in (True, False):
        with pytest.raises(ServiceUnavailableError, match="has no list of Records"):
            BotoStreamClient("t", clients, raw_pages=raw).get_records("iterator")


def test_a_session_that_puts_objects_into_the_response_is_refused() -> None:
    with pytest.raises(ServiceUnavailableError, match="botocore handlers"):
        page_from_parsed({"Records": [{"dynamodb": object()}]})
