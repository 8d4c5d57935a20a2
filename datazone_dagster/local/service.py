"""Context of every operation: the open transaction, the clock, the settings."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datazone_dagster.local.clock import ServerClock
from datazone_dagster.local.read_limits import ReadLimits
from datazone_dagster.local.service_errors import ServiceError, validation

ACCOUNT_ID = "000000000000"
DEFAULT_REGION = "us-east-1"

Body = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """Settings of a server.

    Args:
        initial_shards: Number of shards of a new stream.
        roll_after_seconds: Age at which an open shard is replaced by a child; None: only on
            an admin call. (The service rolls about every 4 hours.)
        two_readers_a_shard: Whether a third reader of a shard is throttled.
        buckets: Folder that stands for each bucket that exports are written to.
    """

    initial_shards: int = 4
    roll_after_seconds: float | None = None
    two_readers_a_shard: bool = False
    buckets: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """Context of one request.

    Args:
        db: Connection with the open transaction.
        clock: Clock of the server.
        settings: Settings of the server.
        region: Region that the client signed for.
        read_limits: Scripted read capacity.
    """

    db: sqlite3.Connection
    clock: ServerClock
    settings: Settings
    region: str = DEFAULT_REGION
    read_limits: ReadLimits = field(default_factory=ReadLimits)


def text(body: Body, name: str) -> str:
    """Return a required string member."""
    value = optional_text(body, name)
    if value is None:
        raise validation(
            f"1 validation error detected: Value null at '{name[:1].lower()}{name[1:]}' failed to "
            "satisfy constraint: Member must not be null"
        )
    return value


def optional_text(body: Body, name: str) -> str | None:
    """Return a string member, None if absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise ServiceError("SerializationException", f"{name}: expected a string")
    return value


def choice(body: Body, name: str, allowed: tuple[str, ...], default: str | None = None) -> str:
    """Return a string member that must be one of a fixed set."""
    value = optional_text(body, name)
    value = default if value is None else value
    if value not in allowed:
        raise validation(
            f"1 validation error detected: Value '{value}' at '{name[:1].lower()}{name[1:]}' "
            f"failed to satisfy constraint: Member must satisfy enum value set: "
            f"[{', '.join(allowed)}]"
        )
    return value


def optional_integer(body: Body, name: str, low: int, high: int | None = None) -> int | None:
    """Return an integer member within its bounds, None if absent."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ServiceError("SerializationException", f"{name}: expected an integer")
    if value < low or (high is not None and value > high):
        bound = f"greater than or equal to {low}" if value < low else f"less or equal to {high}"
        raise validation(
            f"1 validation error detected: Value '{value}' at '{name[:1].lower()}{name[1:]}' "
            f"failed to satisfy constraint: Member must have value {bound}"
        )
    return value


def member(body: Body, name: str) -> Body:
    """Return a map member, empty if absent."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ServiceError("SerializationException", f"{name}: expected a map")
    return value


def members(body: Body, name: str) -> list[Body]:
    """Return a member that is a list of maps, empty if absent."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(element, dict) for element in value):
        raise ServiceError("SerializationException", f"{name}: expected a list of maps")
    return value


def refuse(body: Body, *names: str) -> None:
    """Refuse members that this server does not support, instead of ignoring them."""
    for name in names:
        if body.get(name) is not None:
            raise validation(f"{name} is not supported by the local DynamoDB of datazone_dagster")
