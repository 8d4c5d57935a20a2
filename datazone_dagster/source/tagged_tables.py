"""Search for the tables of an account and region that have a tag.

The Resource Groups Tagging API filters in the service: one call finds 100 tables, and the action
`tag:GetResources` is enough. DynamoDB's own calls would take one `ListTagsOfResource` for every
table of the account, at 10 a second. `DescribeTable` then tells the stream of each table found.
"""

from __future__ import annotations

from typing import Any

from datazone_dagster.errors import ServiceUnavailableError, SourceError, TableNotFoundError
from datazone_dagster.model.tagged_table import TableTag, TaggedTable
from datazone_dagster.source.connection_settings import ConnectionSettings
from datazone_dagster.source.failures import Call, translated
from datazone_dagster.source.session import Searchers, build_searchers

_TABLE_TYPE = "dynamodb:table"
_PAGE_SIZE = 100


def find_tables(tag: TableTag, settings: ConnectionSettings) -> tuple[TaggedTable, ...]:
    """Return the tables that have a tag, by name.

    A table that the search still names although it is deleted is left out. The tagging API is
    eventually consistent: a tag that was set seconds ago may be missing.

    Raises:
        SourceError: A call failed, or there are no credentials or no region.
    """
    searchers = build_searchers(settings, tag=tag)
    try:
        arns = _tagged_arns(tag, searchers, settings)
        found = [_described(arn, tag, searchers, settings) for arn in sorted(arns)]
    finally:
        for client in searchers:
            client.close()
    return tuple(one for one in found if one is not None)


def _tagged_arns(tag: TableTag, searchers: Searchers, settings: ConnectionSettings) -> list[str]:
    call = _call("GetResources", searchers.tagging, tag, settings)
    arns: list[str] = []
    token, tokens = "", {""}
    while True:
        with translated(call):
            page = searchers.tagging.get_resources(
                TagFilters=[{"Key": tag.key, "Values": [tag.value]}],
                ResourceTypeFilters=[_TABLE_TYPE],
                ResourcesPerPage=_PAGE_SIZE,
                PaginationToken=token,
            )
            arns += [one["ResourceARN"] for one in page["ResourceTagMappingList"]]
            token = page.get("PaginationToken") or ""
        if not token:
            return arns
        if token in tokens:
            raise _endless(call)
        tokens.add(token)


def _described(
    arn: str, tag: TableTag, searchers: Searchers, settings: ConnectionSettings
) -> TaggedTable | None:
    parts = arn.split(":", 5)
    if len(parts) != 6 or not parts[5].startswith("table/"):
        raise SourceError(
            f"The search for tables with the tag {tag} found {arn!r}, which is no table's ARN.",
            safe="Nothing was written: the last refresh stays.",
            hint="Check the endpoint URL: an emulator may not answer as AWS does.",
        )
    region, name = parts[3], parts[5].removeprefix("table/")
    call = _call("DescribeTable", searchers.dynamodb, tag, settings, name)
    try:
        with translated(call):
            stream = searchers.dynamodb.describe_table(TableName=name)["Table"].get(
                "StreamSpecification", {}
            )
            view = stream.get("StreamViewType") if stream.get("StreamEnabled") else None
    except TableNotFoundError:
        return None
    return TaggedTable(name, region, view)


def _call(
    operation: str, client: Any, tag: TableTag, settings: ConnectionSettings, name: str = ""
) -> Call:
    meta = client.meta
    return Call(
        operation,
        name,
        meta.region_name,
        meta.endpoint_url,
        role_arn=settings.role_arn,
        tag=str(tag),
    )


def _endless(call: Call) -> ServiceUnavailableError:
    return ServiceUnavailableError(
        f"{call.summary}: the service returns the same page again and again.",
        safe=call.safe,
        hint="Check the endpoint URL: an emulator may not page as AWS does.",
    )
