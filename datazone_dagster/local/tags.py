"""Tags of tables, and the one call of the Resource Groups Tagging API that finds tables by them."""

from __future__ import annotations

import msgspec

from datazone_dagster.local import tables
from datazone_dagster.local.service import (
    Body,
    Call,
    members,
    optional_integer,
    optional_text,
    text,
)
from datazone_dagster.local.service_errors import ServiceError, invalid_parameter, validation
from datazone_dagster.local.stream_log import table_arn
from datazone_dagster.local.tables import Table, all_tables, described_table, find_table, save_table

_TABLE_TYPES = {"dynamodb", "dynamodb:table"}
_TAGS_MAX = 50
_PAGE_DEFAULT = 50


def tag_resource(call: Call, body: Body) -> Body:
    """`TagResource`."""
    table = described_table(call, text(body, "ResourceArn"))
    save_table(call, _tagged(table, body))
    return {}


def untag_resource(call: Call, body: Body) -> Body:
    """`UntagResource`."""
    table = described_table(call, text(body, "ResourceArn"))
    gone = _texts(body, "TagKeys")
    tags = {key: value for key, value in table.tags.items() if key not in gone}
    save_table(call, msgspec.structs.replace(table, tags=tags))
    return {}


def create_table(call: Call, body: Body) -> Body:
    """`CreateTable`, with its `Tags`."""
    answer = tables.create_table(call, body)
    if members(body, "Tags"):
        save_table(call, _tagged(find_table(call, text(body, "TableName")), body))
    return answer


def get_resources(call: Call, body: Body) -> Body:
    """`GetResources`: the tables of the region that have every tag asked for, by name."""
    kinds = _texts(body, "ResourceTypeFilters")
    filters = [(text(one, "Key"), _texts(one, "Values")) for one in members(body, "TagFilters")]
    size = optional_integer(body, "ResourcesPerPage", 1, 100) or _PAGE_DEFAULT
    start = optional_text(body, "PaginationToken") or ""
    found = [
        table
        for table in all_tables(call)
        if table.region == call.region
        and table.tags
        and table.name > start
        and (not kinds or not _TABLE_TYPES.isdisjoint(kinds))
        and all(_matches(table, key, values) for key, values in filters)
    ]
    page = found[:size]
    return {
        "PaginationToken": page[-1].name if len(found) > size else "",
        "ResourceTagMappingList": [
            {"ResourceARN": table_arn(table.region, table.name), "Tags": _listed(table)}
            for table in page
        ],
    }


def _matches(table: Table, key: str, values: list[str]) -> bool:
    return key in table.tags and (not values or table.tags[key] in values)


def _listed(table: Table) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in table.tags.items()]


def _tagged(table: Table, body: Body) -> Table:
    new = {text(one, "Key"): text(one, "Value") for one in members(body, "Tags")}
    tags = {**table.tags, **new}
    if len(tags) > _TAGS_MAX:
        raise validation(f"A table has at most {_TAGS_MAX} tags")
    if any(not 1 <= len(key) <= 128 or len(value) > 256 for key, value in new.items()):
        raise invalid_parameter("a tag key has 1 to 128 characters, a tag value at most 256")
    return msgspec.structs.replace(table, tags=tags)


def _texts(body: Body, name: str) -> list[str]:
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ServiceError("SerializationException", f"{name}: expected a list of strings")
    return value
