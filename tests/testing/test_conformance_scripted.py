"""The scripted stream runs the suite of the real clients: users' tests stand on it."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest

from datazone_dagster.local import Fault, FaultPlan
from datazone_dagster.model.protocols import StreamClient
from datazone_dagster.model.service_limits import ITERATOR_LIFETIME_SECONDS
from datazone_dagster.testing import FixedClock, ScriptedStream
from tests.source.conformance import (
    RawRecordsConformance,
    ShardedStreamConformance,
    new_table_name,
)


class ScriptedWorld:
    """`ControlledWorld` of scripted streams, one a table, which are their own clients."""

    region = "eu-west-1"
    iterator_seconds = ITERATOR_LIFETIME_SECONDS

    def __init__(self) -> None:
        self._clock = FixedClock()
        self._tables: dict[str, ScriptedStream] = {}

    def reader(self, table_name: str) -> StreamClient:
        if table_name in self._tables:
            return self._tables[table_name]
        missing = ScriptedStream(table_name)
        missing.delete_table()
        return missing

    def create_table(self, view_type: str | None = "NEW_AND_OLD_IMAGES") -> str:
        name = new_table_name()
        self._tables[name] = ScriptedStream(name, shards=2, view_type=view_type, clock=self._clock)
        return name

    def delete_table(self, table_name: str) -> None:
        self._tables[table_name].delete_table()

    def put(self, table_name: str, item_id: str, **attributes: Any) -> None:
        self._tables[table_name].put({"id": {"S": item_id}, **_json_form(attributes)})

    def put_many(self, table_name: str, item_ids: list[str]) -> None:
        for item_id in item_ids:
            self.put(table_name, item_id)

    def delete(self, table_name: str, item_id: str) -> None:
        self._tables[table_name].delete({"id": {"S": item_id}})

    def disable_stream(self, table_name: str) -> None:
        self._tables[table_name].disable()

    def enable_stream(self, table_name: str) -> None:
        self._tables[table_name].enable()

    def shard_ids(self, table_name: str) -> list[str]:
        return self._tables[table_name].shard_ids()

    def split(self, table_name: str) -> None:
        self._tables[table_name].split()

    def roll(self, table_name: str) -> None:
        self._tables[table_name].roll()

    def trim(self, table_name: str) -> None:
        self._tables[table_name].trim()

    def trim_through(self, table_name: str, shard_id: str, sequence_number: int) -> None:
        self._tables[table_name].trim_through(shard_id, sequence_number)

    def now(self) -> float:
        return self._clock().timestamp()

    def advance_clock(self, seconds: float) -> None:
        self._clock.advance(timedelta(seconds=seconds))

    def expire_items(self, table_name: str, attribute: str) -> None:
        table = self._tables[table_name]
        for item in list(table.items.values()):
            if float(item[attribute]["N"]) <= self.now():
                table.delete(item, ttl=True)

    def insert_empty_page(self, table_name: str, shard_id: str) -> None:
        table = self._tables[table_name]
        table.empty_page(table.shard_ids().index(shard_id))

    def insert_malformed(self, table_name: str, payload: str) -> None:
        self._tables[table_name].malformed(payload.encode())

    def set_faults(self, *faults: Fault) -> None:
        for table in self._tables.values():
            table.faults = FaultPlan(faults)


def _json_form(value: Any) -> Any:
    """Return an attribute as DynamoDB JSON, where binaries are base64, as boto3 sends it.

    A value without binaries is returned itself, not copied: the stream has to copy it.
    """
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        converted: Any = {name: _json_form(inner) for name, inner in value.items()}
    elif isinstance(value, list):
        converted = [_json_form(inner) for inner in value]
    else:
        return value
    return value if converted == value else converted


class TestScriptedStream(ShardedStreamConformance, RawRecordsConformance):
    @pytest.fixture
    def world(self) -> ScriptedWorld:
        return ScriptedWorld()
