"""Tags of tables: set, taken away, and found through the Resource Groups Tagging API."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from datazone_dagster.local import LocalDynamoDB
from tests.local.stream_reading import Clients, create_table, error_code

SHOP = [{"Key": "team", "Value": "shop"}]


def tagging(server: LocalDynamoDB, region: str = "us-west-2") -> Any:
    return boto3.client(
        "resourcegroupstaggingapi",
        endpoint_url=server.endpoint_url,
        region_name=region,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def found(client: Any, key: str, *values: str, kind: str = "dynamodb:table") -> list[str]:
    pages = client.get_paginator("get_resources").paginate(
        TagFilters=[{"Key": key, "Values": list(values)}],
        ResourceTypeFilters=[kind],
        PaginationConfig={"PageSize": 2},
    )
    listed = [one for page in pages for one in page["ResourceTagMappingList"]]
    assert all({"Key": key, "Value": "shop"} in one["Tags"] for one in listed)
    return [one["ResourceARN"].rsplit("/", 1)[1] for one in listed]


def test_tables_are_found_by_their_tags(own_server: LocalDynamoDB, own_clients: Clients) -> None:
    arns = {}
    for name in ("a-shop", "b-shop", "c-shop", "others"):
        create_table(own_clients, name)
        described = own_clients.dynamodb.describe_table(TableName=name)["Table"]
        arns[name] = described["TableArn"]
    for name in ("c-shop", "a-shop", "b-shop"):
        own_clients.dynamodb.tag_resource(ResourceArn=arns[name], Tags=SHOP)
    client = tagging(own_server)
    assert found(client, "team", "shop") == ["a-shop", "b-shop", "c-shop"]
    assert found(client, "team") == ["a-shop", "b-shop", "c-shop"]
    assert found(client, "team", "shop", kind="s3") == found(client, "owner", "shop") == []
    assert found(tagging(own_server, "eu-west-1"), "team", "shop") == []
    own_clients.dynamodb.untag_resource(ResourceArn=arns["b-shop"], TagKeys=["team", "other"])
    assert found(client, "team", "shop") == ["a-shop", "c-shop"]


def test_a_table_is_made_with_tags(own_server: LocalDynamoDB, own_clients: Clients) -> None:
    own_clients.dynamodb.create_table(
        TableName="tagged",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        Tags=SHOP,
    )
    assert found(tagging(own_server), "team", "shop") == ["tagged"]


@pytest.mark.parametrize(
    "tags", [[{"Key": "k" * 129, "Value": "x"}], [{"Key": f"k{n}", "Value": ""} for n in range(51)]]
)
def test_tags_have_limits(own_clients: Clients, tags: list[dict[str, str]]) -> None:
    arn = "arn:aws:dynamodb:us-west-2:000000000000:table/orders"
    create_table(own_clients, "orders")
    with pytest.raises(ClientError) as caught:
        own_clients.dynamodb.tag_resource(ResourceArn=arn, Tags=tags)
    assert error_code(caught) == "ValidationException"
