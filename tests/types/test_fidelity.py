"""The fidelity proof: what boto3 put into DynamoDB comes back out of the Delta table, exactly.

Real all the way: boto3's client over HTTP, the local DynamoDB, the drain, the change log,
`items()`, the merge; then Polars and delta-rs read the table, each on its own. The measure is
boto3's TypeDeserializer on what boto3 itself reads from the table.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest
from boto3.dynamodb.types import Binary, TypeDeserializer
from deltalake import DeltaTable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.frame import Frame
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.merge.dataset import ATTRIBUTES
from datazone_dagster.model.attributes import AttributeMapping
from datazone_dagster.source.client import BotoStreamClient
from datazone_dagster.source.session import Clients as StreamClients
from datazone_dagster.sources import DynamoDBSource
from datazone_dagster.testing import run_transform
from tests.dynamodb_values import ATTRIBUTE_NAMES, TYPED, VALUES, as_boto, plain
from tests.local.stream_reading import Clients, clients_of, create_table
from tests.types.table_items import item_of

_numbers = itertools.count(1)

ITEMS = st.dictionaries(
    ATTRIBUTE_NAMES.filter(lambda name: name != "id"),
    st.one_of(VALUES, *TYPED.values()),
    max_size=6,
)


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=2) as running:
        yield running


@pytest.fixture(scope="module")
def clients(server: LocalDynamoDB) -> Clients:
    return clients_of(server)


class Flow:
    """A table, and the dataset of its items."""

    def __init__(self, clients: Clients, root: Path, types: dict[str, str] | None = None) -> None:
        self.table = create_table(clients, f"fidelity-{next(_numbers)}")
        self._root = root
        source = DynamoDBSource(self.table.name, region="us-west-2")
        self._client = BotoStreamClient(
            self.table.name, StreamClients(clients.dynamodb, clients.streams)
        )

        @transform(
            input_mapping={"changes": Input(Stream(source=source))},
            output_mapping={"typed": Output(Dataset(id="typed"))},
            name="typed",
        )
        def typed(changes: Frame) -> Frame:
            return changes.items(types=types)

        self._transform = typed

    def put(self, key: str, item: dict[str, Any]) -> None:
        self.table.put(key, **{name: as_boto(value) for name, value in item.items()})

    def apply(self) -> None:
        run_transform(self._transform, self._client, self._root)

    def check(self) -> None:
        """Both readers see what DynamoDB holds."""
        expected = {key: _deserialized(item) for key, item in self.table.items().items()}
        delta = DeltaTable(self._root / "typed")
        mapping = AttributeMapping.from_json(delta.metadata().configuration[ATTRIBUTES])
        by_delta_rs = delta.to_pyarrow_table().to_pylist()
        by_polars = polars.read_delta(str(self._root / "typed")).to_dicts()
        for rows in (by_delta_rs, by_polars):
            items = [item_of(row, mapping) for row in rows]
            assert {item["id"]: item for item in items} == expected


def _deserialized(item: dict[str, Any]) -> dict[str, Any]:
    """boto3's view. NULL and missing are one in a column; a column of binary has bytes."""
    deserialize = TypeDeserializer().deserialize
    values = {name: deserialize(value) for name, value in item.items()}
    return {name: _in_column(value) for name, value in values.items() if value is not None}


def _in_column(value: Any) -> Any:
    if isinstance(value, Binary):
        return value.value  # type: ignore[attr-defined]  # not in the stubs
    if isinstance(value, set) and any(isinstance(member, Binary) for member in value):
        return sorted(member.value for member in value)
    return plain(value)


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(ITEMS, min_size=1, max_size=6),
    st.lists(ITEMS, max_size=3),
    st.sets(st.integers(0, 5), max_size=2),
)
def test_every_item_comes_back_as_boto3_reads_it(
    clients: Clients,
    tmp_path_factory: pytest.TempPathFactory,
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    deleted: set[int],
) -> None:
    flow = Flow(clients, tmp_path_factory.mktemp("fidelity"))
    for position, item in enumerate(first):
        flow.put(str(position), item)
    flow.apply()
    flow.check()
    for position, item in enumerate(second):
        flow.put(str(position), item)
    for position in deleted:
        flow.table.delete(str(position))
    flow.apply()
    flow.check()
