"""Comparison of a table behind boto3's client with the dataset of its items."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import polars
from boto3.dynamodb.types import Binary, TypeDeserializer
from deltalake import DeltaTable

from datazone_dagster import Dataset, Input, Output, Stream, Transform, transform
from datazone_dagster.dataset.properties import ATTRIBUTES
from datazone_dagster.frame import Frame
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.session import Clients as StreamClients
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import ScriptedStream, run_transform
from tests.dynamodb_values import as_boto, plain
from tests.local.stream_reading import Clients, create_table
from tests.types.table_items import item_of

_numbers = itertools.count(1)


def typed_transform(
    source: DynamoDBSource, image: Any = "new", types: dict[str, str] | None = None
) -> Transform[Any, Any]:
    """Make a transform that writes `items()` of a source to the dataset `typed`."""

    @transform(
        input_mapping={"changes": Input(Stream(source=source))},
        output_mapping={"typed": Output(Dataset(id="typed"))},
        name="typed",
    )
    def typed(changes: Frame) -> Frame:
        return changes.items(image, types)

    return typed


def scripted(
    stream: ScriptedStream, root: Path, image: Any = "new", types: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Apply a scripted stream and return the rows of its items."""
    source = DynamoDBSource("orders", region="eu-west-1")
    tables = run_transform(typed_transform(source, image, types), stream, root)
    rows: list[dict[str, Any]] = tables["typed"].to_pylist()
    return rows


class Flow:
    """A table and the dataset of its items."""

    def __init__(self, clients: Clients, root: Path, types: dict[str, str] | None = None) -> None:
        self.table = create_table(clients, f"fidelity-{next(_numbers)}")
        self._root = root
        self.uri = str(root / "typed")
        source = DynamoDBSource(self.table.name, region="us-west-2")
        self._client = BotoStreamClient(
            self.table.name, StreamClients(clients.dynamodb, clients.streams)
        )

        self._transform = typed_transform(source, types=types)

    def put(self, key: str, item: dict[str, Any]) -> None:
        self.table.put(key, **{name: as_boto(value) for name, value in item.items()})

    def apply(self) -> None:
        run_transform(self._transform, self._client, self._root)

    def check(self) -> None:
        """Assert that both readers return the items of the table."""
        expected = {key: _deserialized(item) for key, item in self.table.items().items()}
        delta = DeltaTable(self.uri)
        mapping = AttributeMapping.from_json(delta.metadata().configuration[ATTRIBUTES])
        by_delta_rs = delta.to_pyarrow_table().to_pylist()
        by_polars = polars.read_delta(self.uri).to_dicts()
        for rows in (by_delta_rs, by_polars):
            items = [item_of(row, mapping) for row in rows]
            assert {item["id"]: item for item in items} == expected


def _deserialized(item: dict[str, Any]) -> dict[str, Any]:
    """Return boto3's view in column form: NULL counts as missing, and binary is bytes."""
    deserialize = TypeDeserializer().deserialize
    values = {name: deserialize(value) for name, value in item.items()}
    return {name: _in_column(value) for name, value in values.items() if value is not None}


def _in_column(value: Any) -> Any:
    if isinstance(value, Binary):
        return value.value  # type: ignore[attr-defined]  # not in the stubs
    if isinstance(value, set) and any(isinstance(member, Binary) for member in value):
        return sorted(member.value for member in value)
    return plain(value)
