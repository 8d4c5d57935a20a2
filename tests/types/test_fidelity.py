"""The fidelity proof: the Delta table returns exactly the items that boto3 put into DynamoDB.

Every stage is real: boto3's client over HTTP, the local DynamoDB, the drain, the change log,
`items()`, the merge. Polars and delta-rs then read the table independently. The expected values
are those of boto3's TypeDeserializer for the items that boto3 itself reads from the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datazone_dagster.local import LocalDynamoDB
from tests.dynamodb_values import ATTRIBUTE_NAMES, TYPED, VALUES
from tests.examples import examples
from tests.local.stream_reading import Clients, clients_of
from tests.types.flow import Flow

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


@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
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
