"""Read and write capacity: what a table is given, what a request consumes, what a script allows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from datazone_dagster.local.service import Body, Call, choice
from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.tables import Table
from datazone_dagster.local.values import Item, item_bytes
from datazone_dagster.model.service_limits import READ_UNIT_BYTES

_WRITE_UNIT_BYTES = 1024


def write_capacity(body: Body, table: Table, *images: Item | None) -> Body:
    """`ConsumedCapacity` of a write: one unit per KB of the larger image."""
    size_bytes = max((item_bytes(image) for image in images if image is not None), default=0)
    return _consumed(body, table, max(1.0, float(math.ceil(size_bytes / _WRITE_UNIT_BYTES))))


def read_units(body: Body, size_bytes: int) -> float:
    """Return the units of a read: one per 4 KB, half of it when eventually consistent."""
    units = float(max(1, math.ceil(size_bytes / READ_UNIT_BYTES)))
    return units if body.get("ConsistentRead") else units / 2


def read_capacity(call: Call, body: Body, table: Table, size_bytes: int) -> Body:
    """Spend the units of a read and return its `ConsumedCapacity`.

    Raises:
        ServiceError: `ProvisionedThroughputExceededException`: the table's scripted capacity is
            used up.
    """
    units = read_units(body, size_bytes)
    if not spend(call, table, units):
        raise exceeded()
    return _consumed(body, table, units)


def spend(call: Call, table: Table, units: float) -> bool:
    """Take read units from a table's scripted capacity; return False if it is used up."""
    if table.read_limit is None:
        return True
    return call.read_limits.spend(table.number, table.read_limit, units, call.clock.now())


def exceeded() -> ServiceError:
    """Return the error for a read beyond the capacity."""
    return ServiceError(
        "ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded. Consider "
        "increasing your provisioning level with the UpdateTable API.",
    )


def consumed_by_tables(body: Body, units: Iterable[tuple[Table, float]]) -> Body:
    """`ConsumedCapacity` of a batch: one entry for each table."""
    entries = [
        consumed["ConsumedCapacity"]
        for table, spent in units
        if (consumed := _consumed(body, table, spent))
    ]
    return {"ConsumedCapacity": entries} if entries else {}


def _consumed(body: Body, table: Table, units: float) -> Body:
    wanted = choice(body, "ReturnConsumedCapacity", ("NONE", "TOTAL", "INDEXES"), "NONE")
    if wanted == "NONE":
        return {}
    return {"ConsumedCapacity": {"TableName": table.name, "CapacityUnits": units}}
