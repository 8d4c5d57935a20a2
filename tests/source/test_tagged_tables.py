"""Search for tables by a tag, on the emulator and with scripted answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datazone_dagster.errors import (
    AccessDeniedError,
    CredentialsError,
    ServiceUnavailableError,
    SourceError,
    ThrottledError,
)
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.model.tagged_table import TableTag, TaggedTable
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.session import build_searchers
from datazone_dagster.source.tagged_tables import find_tables
from tests.local.stream_reading import clients_of, create_table
from tests.source.scripted import ScriptedService, error, ok

TAG = TableTag("team", "shop")
ARN = "arn:aws:dynamodb:us-west-2:000000000000:table/"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as running:
        yield running


def settings(url: str, **more: object) -> ConnectionSettings:
    given: dict[str, object] = {
        "region": "us-west-2",
        "endpoint_url": url,
        "max_attempts": 1,
        "aws_access_key_id": "k",
        "aws_secret_access_key": "s",
        **more,
    }
    return ConnectionSettings(**given)  # type: ignore[arg-type]  # named above


def test_tables_with_the_tag_and_their_streams(server: LocalDynamoDB) -> None:
    clients = clients_of(server)
    for name in ("orders", "customers", "untagged"):
        create_table(clients, name)
    clients.dynamodb.update_table(
        TableName="customers", StreamSpecification={"StreamEnabled": False}
    )
    for name, value in (("orders", "shop"), ("customers", "shop"), ("untagged", "other")):
        clients.dynamodb.tag_resource(
            ResourceArn=ARN + name, Tags=[{"Key": "team", "Value": value}]
        )
    assert find_tables(TAG, settings(server.endpoint_url)) == (
        TaggedTable("customers", "us-west-2", None),
        TaggedTable("orders", "us-west-2", "NEW_AND_OLD_IMAGES"),
    )
    calls = server.admin.counters()["calls"]
    assert (calls["GetResources"], calls["DescribeTable"]) == (1, 2)
    assert find_tables(TAG, settings(server.endpoint_url, region="eu-west-1")) == ()


def page(*names: str, token: str = "") -> object:
    found = [{"ResourceARN": ARN + name, "Tags": []} for name in names]
    return {"PaginationToken": token, "ResourceTagMappingList": found}


def test_every_page_is_read_and_a_deleted_table_is_left_out(service: ScriptedService) -> None:
    service.script("GetResources", ok(page("b", token="more")), ok(page("a")))
    described = {"Table": {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "V"}}}
    service.script("DescribeTable", error("ResourceNotFoundException"), ok(described))
    assert find_tables(TAG, settings(service.url)) == (TaggedTable("b", "us-west-2", "V"),)
    asked = [one.json for one in service.calls("GetResources")]
    assert [one["PaginationToken"] for one in asked] == ["", "more"]
    assert asked[0]["TagFilters"] == [{"Key": "team", "Values": ["shop"]}]
    assert asked[0]["ResourceTypeFilters"] == ["dynamodb:table"]


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        ("AccessDeniedException", AccessDeniedError, r"tag:GetResources on \*.*limited"),
        ("ThrottledException", ThrottledError, "refresh again"),
        ("UnrecognizedClientException", CredentialsError, "the tables with the tag team=shop"),
    ],
)
def test_a_refused_search_says_what_to_do(
    service: ScriptedService, code: str, kind: type[SourceError], words: str
) -> None:
    service.script("GetResources", error(code))
    with pytest.raises(kind, match=words) as caught:
        find_tables(TAG, settings(service.url))
    assert caught.value.safe == "Nothing was written: the tables of the last refresh stay."


def test_a_table_that_may_not_be_described_is_named(service: ScriptedService) -> None:
    service.script("GetResources", ok(page("orders")))
    service.script("DescribeTable", error("AccessDeniedException"))
    with pytest.raises(AccessDeniedError, match="dynamodb:DescribeTable on table/orders"):
        find_tables(TAG, settings(service.url))


def test_odd_answers_are_errors(service: ScriptedService) -> None:
    service.script("GetResources", ok(page(token="again")))
    with pytest.raises(ServiceUnavailableError, match="same page"):
        find_tables(TAG, settings(service.url))
    service.script(
        "GetResources", ok({"ResourceTagMappingList": [{"ResourceARN": "arn:aws:s3:::b"}]})
    )
    with pytest.raises(SourceError, match="no table's ARN"):
        find_tables(TAG, settings(service.url))


@pytest.mark.parametrize(
    ("environment", "endpoint", "expected"),
    [
        ({"AWS_ENDPOINT_URL_DYNAMODB": "http://db:8000"}, None, "http://db:8000"),
        ({}, "https://vpce-1.dynamodb.us-west-2.vpce.amazonaws.com", "https://tagging."),
        (
            {
                "AWS_ENDPOINT_URL_DYNAMODB": "http://db:8000",
                "AWS_ENDPOINT_URL_RESOURCE_GROUPS_TAGGING_API": "http://tags:1",
            },
            None,
            "http://tags:1",
        ),
        ({"AWS_ENDPOINT_URL": "http://stack:4566"}, "http://own:1", "http://own:1"),
    ],
)
def test_an_endpoint_that_is_not_of_aws_answers_the_search_as_well(
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    endpoint: str | None,
    expected: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    made = ConnectionSettings(
        region="us-west-2", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s"
    )
    searchers = build_searchers(made, tag=TAG)
    assert searchers.tagging.meta.endpoint_url.startswith(expected)


def test_without_a_region_the_component_is_named() -> None:
    with pytest.raises(SourceError, match="`region` of the component"):
        find_tables(TAG, ConnectionSettings(aws_access_key_id="k", aws_secret_access_key="s"))
