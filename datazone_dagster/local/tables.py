"""Tables: create, describe, update, delete, list, time to live."""

from __future__ import annotations

import re
import uuid
from typing import Any

import msgspec

from datazone_dagster.local import provisioning
from datazone_dagster.local.keys import KeySchema
from datazone_dagster.local.service import (
    Body,
    Call,
    choice,
    member,
    members,
    optional_integer,
    optional_text,
    refuse,
    text,
)
from datazone_dagster.local.service_errors import (
    in_use,
    invalid_parameter,
    not_found,
    validation,
)
from datazone_dagster.local.stream_log import close_stream, open_stream, table_arn

_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
VIEW_TYPES = ("NEW_AND_OLD_IMAGES", "NEW_IMAGE", "OLD_IMAGE", "KEYS_ONLY")


class Table(msgspec.Struct, frozen=True):
    """Stored table. `number` identifies its rows; a table created again gets a new number."""

    name: str
    table_id: str
    region: str
    created_at: float
    schema: KeySchema
    definitions: list[dict[str, str]]
    provisioned: dict[str, int]
    stream_arn: str | None = None
    latest_stream_arn: str | None = None
    view_type: str | None = None
    ttl_attribute: str | None = None
    on_demand_limits: dict[str, int] = {}
    warm: dict[str, int] = {}
    lag_writes: int | None = None
    lag_seconds: float | None = None
    read_limit: float | None = None
    recoverable_since: float | None = None
    recoverable_days: int = 35
    kinesis_arn: str | None = None
    kinesis_status: str = "ACTIVE"
    kinesis_precision: str = "MILLISECOND"
    tags: dict[str, str] = {}
    number: int = 0

    @property
    def remembers(self) -> bool:
        """Whether earlier states are stored: for lagging reads, and to recover a point in time."""
        states = (self.lag_writes, self.lag_seconds, self.recoverable_since)
        return any(state is not None for state in states)


def find_table(call: Call, name: str) -> Table:
    """Return the table of a data request.

    Raises:
        ServiceError: `ResourceNotFoundException`.
    """
    row = call.db.execute(
        "SELECT number, document FROM tables WHERE name = ?", (_short_name(name),)
    ).fetchone()
    if row is None:
        raise not_found("Requested resource not found")
    return _with_number(row["document"], row["number"])


def _short_name(name: str) -> str:
    """Return the name of a table that a request names by its name or its ARN."""
    return name.rsplit(":table/", 1)[1] if name.startswith("arn:") and ":table/" in name else name


def all_tables(call: Call) -> list[Table]:
    """Return every table, by name."""
    rows = call.db.execute("SELECT number, document FROM tables ORDER BY name")
    return [_with_number(row["document"], row["number"]) for row in rows]


def _with_number(document: bytes, number: int) -> Table:
    table = msgspec.json.decode(document, type=Table)
    return msgspec.structs.replace(table, number=number)


def described_table(call: Call, name: str) -> Table:
    """Return the table of a request about the table itself.

    Raises:
        ServiceError: `ResourceNotFoundException`.
    """
    row = call.db.execute("SELECT 1 FROM tables WHERE name = ?", (_short_name(name),)).fetchone()
    if row is None:
        raise not_found(f"Requested resource not found: Table: {name} not found")
    return find_table(call, name)


def save_table(call: Call, table: Table) -> None:
    """Store the settings of a table."""
    call.db.execute(
        "UPDATE tables SET document = ? WHERE number = ?",
        (msgspec.json.encode(table), table.number),
    )


def create_table(call: Call, body: Body) -> Body:
    """`CreateTable`: active at once."""
    name = text(body, "TableName")
    if not _NAME.fullmatch(name):
        raise validation(
            f"Invalid table name {name!r}: 3 to 255 characters of a-z, A-Z, 0-9, '_', '-' and '.'"
        )
    refuse(body, "GlobalSecondaryIndexes", "LocalSecondaryIndexes")
    if call.db.execute("SELECT 1 FROM tables WHERE name = ?", (name,)).fetchone():
        raise in_use(f"Table already exists: {name}")
    table = Table(
        name=name,
        table_id=str(uuid.uuid4()),
        region=call.region,
        created_at=call.clock.now(),
        schema=_key_schema(body),
        definitions=members(body, "AttributeDefinitions"),
        provisioned=provisioning.provisioned(body),
        on_demand_limits=provisioning.on_demand_limits(body) or {},
        warm=provisioning.warm(body) or {},
    )
    cursor = call.db.execute(
        "INSERT INTO tables (name, document) VALUES (?, ?)", (name, msgspec.json.encode(table))
    )
    table = msgspec.structs.replace(table, number=int(cursor.lastrowid or 0))
    table = _with_stream(call, table, member(body, "StreamSpecification"))
    save_table(call, table)
    return {"TableDescription": _description(call, table)}


def _key_schema(body: Body) -> KeySchema:
    types: dict[str, str] = {}
    for definition in members(body, "AttributeDefinitions"):
        types[text(definition, "AttributeName")] = choice(
            definition, "AttributeType", ("S", "N", "B")
        )
    elements = [
        (choice(element, "KeyType", ("HASH", "RANGE")), text(element, "AttributeName"))
        for element in members(body, "KeySchema")
    ]
    if [kind for kind, _ in elements] not in (["HASH"], ["HASH", "RANGE"]):
        raise invalid_parameter("The key schema must have one HASH key and at most one RANGE key")
    names = [name for _, name in elements]
    if set(names) != types.keys() or len(set(names)) != len(names):
        raise invalid_parameter(
            "Number of attributes in KeySchema does not exactly match number of attributes "
            "defined in AttributeDefinitions"
        )
    if len(names) == 1:
        return KeySchema(names[0], types[names[0]])
    return KeySchema(names[0], types[names[0]], names[1], types[names[1]])


def _with_stream(call: Call, table: Table, specification: Body) -> Table:
    if not specification:
        return table
    enabled = specification.get("StreamEnabled")
    if not enabled:
        if optional_text(specification, "StreamViewType") is not None:
            raise validation("StreamViewType must not be given when StreamEnabled is false")
        if table.stream_arn is None:
            return table
        close_stream(call, table.stream_arn)
        return msgspec.structs.replace(table, stream_arn=None)
    if table.stream_arn is not None:
        raise in_use(f"Table already has an enabled stream: TableName={table.name}")
    view = choice(specification, "StreamViewType", VIEW_TYPES)
    arn = open_stream(
        call,
        table_name=table.name,
        table_id=table.table_id,
        schema=table.schema,
        view=view,
    )
    return msgspec.structs.replace(table, stream_arn=arn, latest_stream_arn=arn, view_type=view)


def describe_table(call: Call, body: Body) -> Body:
    """`DescribeTable`."""
    return {"Table": _description(call, described_table(call, text(body, "TableName")))}


def _description(call: Call, table: Table, status: str = "ACTIVE") -> Body:
    counts = call.db.execute(
        "SELECT count(*) AS items, coalesce(sum(size_bytes), 0) AS size FROM items"
        " WHERE table_number = ?",
        (table.number,),
    ).fetchone()
    kinds = ("HASH", "RANGE")
    description: dict[str, Any] = {
        "TableName": table.name,
        "TableArn": table_arn(table.region, table.name),
        "TableId": table.table_id,
        "TableStatus": status,
        "CreationDateTime": table.created_at,
        "KeySchema": [
            {"AttributeName": name, "KeyType": kind}
            for name, kind in zip(table.schema.names, kinds, strict=False)
        ],
        "AttributeDefinitions": table.definitions,
        **provisioning.described_capacity(table.provisioned, table.on_demand_limits, table.warm),
        # Counted for each call; the service counts every six hours.
        "ItemCount": counts["items"],
        "TableSizeBytes": counts["size"],
        "DeletionProtectionEnabled": False,
    }
    if table.stream_arn is not None:
        description["StreamSpecification"] = {
            "StreamEnabled": True,
            "StreamViewType": table.view_type,
        }
    if table.latest_stream_arn is not None:
        # Stays after a disable, as in the service: the stream's records are still readable.
        description["LatestStreamArn"] = table.latest_stream_arn
        description["LatestStreamLabel"] = table.latest_stream_arn.rsplit("/", 1)[1]
    return description


def update_table(call: Call, body: Body) -> Body:
    """`UpdateTable`: streams on and off, capacity."""
    table = described_table(call, text(body, "TableName"))
    refuse(body, "GlobalSecondaryIndexUpdates", "ReplicaUpdates")
    table = _with_stream(call, table, member(body, "StreamSpecification"))
    if body.get("BillingMode") is not None or body.get("ProvisionedThroughput") is not None:
        table = msgspec.structs.replace(table, provisioned=provisioning.provisioned(body))
    limits, warm = provisioning.on_demand_limits(body), provisioning.warm(body)
    table = msgspec.structs.replace(
        table,
        on_demand_limits=table.on_demand_limits if limits is None else limits,
        warm=table.warm if warm is None else warm,
    )
    save_table(call, table)
    return {"TableDescription": _description(call, table)}


def delete_table(call: Call, body: Body) -> Body:
    """`DeleteTable`: gone at once; its stream is disabled and stays readable for 24 hours."""
    table = described_table(call, text(body, "TableName"))
    description = _description(call, table, "DELETING")
    if table.stream_arn is not None:
        close_stream(call, table.stream_arn)
    for stored in ("items", "writes"):
        call.db.execute(f"DELETE FROM {stored} WHERE table_number = ?", (table.number,))  # noqa: S608 - fixed names
    call.db.execute("DELETE FROM tables WHERE number = ?", (table.number,))
    return {"TableDescription": description}


def list_tables(call: Call, body: Body) -> Body:
    """`ListTables`."""
    limit = optional_integer(body, "Limit", 1, 100) or 100
    start = optional_text(body, "ExclusiveStartTableName") or ""
    names = [
        row["name"]
        for row in call.db.execute(
            "SELECT name FROM tables WHERE name > ? ORDER BY name LIMIT ?", (start, limit + 1)
        )
    ]
    answer: Body = {"TableNames": names[:limit]}
    if len(names) > limit:
        answer["LastEvaluatedTableName"] = names[limit - 1]
    return answer


def update_time_to_live(call: Call, body: Body) -> Body:
    """`UpdateTimeToLive`."""
    table = described_table(call, text(body, "TableName"))
    specification = member(body, "TimeToLiveSpecification")
    attribute = text(specification, "AttributeName")
    enabled = bool(specification.get("Enabled"))
    if enabled == (table.ttl_attribute is not None):
        raise validation(f"TimeToLive is already {'enabled' if enabled else 'disabled'}")
    save_table(call, msgspec.structs.replace(table, ttl_attribute=attribute if enabled else None))
    return {"TimeToLiveSpecification": {"AttributeName": attribute, "Enabled": enabled}}


def describe_time_to_live(call: Call, body: Body) -> Body:
    """`DescribeTimeToLive`."""
    table = described_table(call, text(body, "TableName"))
    if table.ttl_attribute is None:
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
    return {
        "TimeToLiveDescription": {
            "TimeToLiveStatus": "ENABLED",
            "AttributeName": table.ttl_attribute,
        }
    }
