"""Capacity settings of a table: provisioned, limits of on-demand tables, warm throughput."""

from __future__ import annotations

from datazone_dagster.local.service import Body, choice, member, optional_integer
from datazone_dagster.local.service_errors import invalid_parameter

UNITS = ("ReadCapacityUnits", "WriteCapacityUnits")
_ON_DEMAND_LIMITS = ("MaxReadRequestUnits", "MaxWriteRequestUnits")
_WARM = ("ReadUnitsPerSecond", "WriteUnitsPerSecond")
_WARM_ON_DEMAND = (12_000, 4_000)  # of a new on-demand table, by the developer guide


def provisioned(body: Body) -> dict[str, int]:
    """Return the provisioned units of a request; empty for an on-demand table."""
    mode = choice(body, "BillingMode", ("PROVISIONED", "PAY_PER_REQUEST"), "PROVISIONED")
    given = member(body, "ProvisionedThroughput")
    if mode == "PAY_PER_REQUEST":
        if given:
            raise invalid_parameter(
                "Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when "
                "BillingMode is PAY_PER_REQUEST"
            )
        return {}
    units = {name: optional_integer(given, name, 1) for name in UNITS}
    if None in units.values():
        raise invalid_parameter(
            "ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode "
            "is PROVISIONED"
        )
    return {name: value for name, value in units.items() if value is not None}


def on_demand_limits(body: Body) -> dict[str, int] | None:
    """Return the limits of a request (-1: none); None if the request has none."""
    if body.get("OnDemandThroughput") is None:
        return None
    given = member(body, "OnDemandThroughput")
    limits = {name: optional_integer(given, name, -1) for name in _ON_DEMAND_LIMITS}
    return {name: value for name, value in limits.items() if value is not None}


def warm(body: Body) -> dict[str, int] | None:
    """Return the warm throughput of a request; None if the request has none."""
    if body.get("WarmThroughput") is None:
        return None
    given = member(body, "WarmThroughput")
    units = {name: optional_integer(given, name, 1) for name in _WARM}
    return {name: value for name, value in units.items() if value is not None}


def described_capacity(
    provisioned_units: dict[str, int], limits: dict[str, int], warm_units: dict[str, int]
) -> Body:
    """Return the members of DescribeTable that show a table's capacity."""
    least = tuple(provisioned_units[name] for name in UNITS) if provisioned_units else None
    described: Body = {
        "ProvisionedThroughput": {
            "NumberOfDecreasesToday": 0,
            **(provisioned_units or dict.fromkeys(UNITS, 0)),
        },
        "WarmThroughput": {
            **dict(zip(_WARM, least or _WARM_ON_DEMAND, strict=True)),
            **warm_units,
            "Status": "ACTIVE",
        },
    }
    if not provisioned_units:
        described["BillingModeSummary"] = {"BillingMode": "PAY_PER_REQUEST"}
    if limits:
        described["OnDemandThroughput"] = limits
    return described
