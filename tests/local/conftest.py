"""One server for the entire run, fresh tables for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from datazone_dagster.local import LocalDynamoDB
from tests.local.stream_reading import Clients, Table, clients_of, create_table

_numbers = itertools.count(1)


@pytest.fixture(scope="package")
def server() -> Iterator[LocalDynamoDB]:
    """Shared server: tests use tables of their own and don't touch the clock or the faults."""
    with LocalDynamoDB(shards=2) as running:
        yield running


@pytest.fixture(scope="package")
def second_server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as running:
        yield running


@pytest.fixture
def own_server(second_server: LocalDynamoDB) -> LocalDynamoDB:
    """Server in its initial state, for tests that move the clock or inject faults."""
    second_server.admin.reset()
    return second_server


@pytest.fixture(scope="package")
def clients(server: LocalDynamoDB) -> Clients:
    return clients_of(server)


@pytest.fixture
def table(clients: Clients) -> Table:
    """Table with key `id` (S) and a stream with both images."""
    return create_table(clients, f"table-{next(_numbers)}")


@pytest.fixture(scope="package")
def second_clients(second_server: LocalDynamoDB) -> Clients:
    return clients_of(second_server)


@pytest.fixture
def own_clients(own_server: LocalDynamoDB, second_clients: Clients) -> Clients:
    """Clients of that server."""
    return second_clients


@pytest.fixture
def own_table(own_clients: Clients) -> Table:
    return create_table(own_clients, "orders")
