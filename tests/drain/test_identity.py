"""A change log belongs to one table of DynamoDB, whichever process opens it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from datazone_dagster.changelog.log import ChangeLog
from datazone_dagster.errors import DefinitionError, SourceMismatchError, TableNotFoundError
from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.wire_client import WireClient
from datazone_dagster.model.layout import Layout
from datazone_dagster.model.source_identity import Relation, SourceIdentity, relation
from datazone_dagster.pipeline import ConnectionSettings, connect, drain_once, open_gaps
from datazone_dagster.sources import DynamoDBSource
from tests.drain.earlier_log import logs_without_owner
from tests.drain.identity_child import answer
from tests.forked import forked

EAST, WEST = "us-east-1", "eu-west-1"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalDynamoDB]:
    with LocalDynamoDB(shards=1) as server:
        yield server


@pytest.fixture(scope="module")
def west_server() -> Iterator[LocalDynamoDB]:
    """The other region: a server has each table name once."""
    with LocalDynamoDB(shards=1) as server:
        yield server


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(str(tmp_path / "lakehouse"))


class Table:
    """A table of the server in one region, and a process of the code location that reads it."""

    def __init__(
        self, server: LocalDynamoDB, layout: Layout, name: str = "orders", region: str = EAST
    ) -> None:
        self.name, self.region = name, region
        self._server, self._layout = server, layout
        self._wire = WireClient(server.endpoint_url, region=region)
        self._writes = 0

    def create(self) -> Table:
        self._wire.call(
            "CreateTable",
            TableName=self.name,
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
        )
        return self

    def delete(self) -> None:
        self._wire.call("DeleteTable", TableName=self.name)

    def put(self, count: int) -> None:
        for _ in range(count):
            self._writes += 1
            item = {"id": {"S": f"{self.region}-{self._writes}"}, "at": {"S": self.region}}
            self._wire.put_item(TableName=self.name, Item=item)

    def process(self, action: str, **options: str) -> dict[str, Any]:
        """Drain or apply once in a process of its own; return what it sent."""
        options = {
            "table_name": self.name,
            "connect_to": self._server.endpoint_url,
            "connect_in": self.region,
            **options,
        }
        context = forked()
        receiver, sender = context.Pipe(duplex=False)
        dataset_id = f"rows_{self.region}_{self.name.replace('.', '_')}"
        process = context.Process(
            target=answer,
            args=(sender, self._layout.uri, action, dataset_id),
            kwargs=options,
            daemon=True,
        )
        process.start()
        sender.close()
        found: dict[str, Any] = receiver.recv()
        process.join()
        return found


@pytest.fixture
def east(server: LocalDynamoDB, layout: Layout) -> Table:
    server.admin.reset()
    return Table(server, layout).create()


@pytest.fixture
def west(west_server: LocalDynamoDB, layout: Layout) -> Table:
    west_server.admin.reset()
    return Table(west_server, layout, region=WEST).create()


def test_two_regions_in_one_lakehouse_are_refused_with_both_named(east: Table, west: Table) -> None:
    east.put(3)
    west.put(2)
    assert east.process("drain")["records"] == 3
    for action, options in (
        ("drain", {}),
        ("drain", {"region": WEST}),
        ("apply", {"region": WEST}),
    ):
        refused = west.process(action, **options)
        assert refused["error"] == "SourceMismatchError"
        assert f":{EAST}:" in refused["text"]
        assert WEST in refused["text"]
        assert 'name="..."' in refused["text"]
    east.put(1)
    assert east.process("drain") == {"records": 1, "gaps": 0}
    assert east.process("apply", region=EAST) == {"rows": 4, "position": 2}


def test_a_name_of_its_own_keeps_two_regions_apart(east: Table, west: Table) -> None:
    east.put(3)
    west.put(2)
    assert east.process("drain")["records"] == 3
    assert west.process("drain", name="orders_west") == {"records": 2, "gaps": 0}
    assert west.process("apply", name="orders_west", region=WEST)["rows"] == 2
    assert east.process("apply")["rows"] == 3


def test_two_tables_with_one_source_name_are_refused(server: LocalDynamoDB, layout: Layout) -> None:
    server.admin.reset()
    dotted = Table(server, layout, "orders.eu").create()
    dashed = Table(server, layout, "orders-eu").create()
    dotted.put(1)
    assert dotted.process("drain")["records"] == 1
    for action in ("drain", "apply"):
        refused = dashed.process(action)
        assert refused["error"] == "SourceMismatchError"
        assert "orders.eu" in refused["text"]
        assert "orders-eu" in refused["text"]


def test_two_emulators_take_no_turns(
    east: Table, west_server: LocalDynamoDB, layout: Layout
) -> None:
    """Both have one ARN: the second looks like a re-created table, then the first is refused."""
    east.put(3)
    assert east.process("drain")["records"] == 3
    west_server.admin.reset()
    other = Table(west_server, layout).create()
    other.put(2)
    while other.process("drain")["records"] != 2:
        pass
    east.put(1)
    refused = east.process("drain")
    assert refused["error"] == "SourceMismatchError"
    assert len(open_gaps("orders", layout)) == 1


def test_a_region_without_the_table_does_not_end_the_shards(
    west_server: LocalDynamoDB, east: Table, layout: Layout
) -> None:
    east.put(1)
    assert east.process("drain")["records"] == 1
    east.put(1)
    west_server.admin.reset()
    nowhere = Table(west_server, layout, region=WEST)
    assert nowhere.process("drain")["error"] == "SourceMismatchError"
    assert east.process("drain") == {"records": 1, "gaps": 0}


def test_a_table_that_does_not_exist_makes_no_change_log(
    server: LocalDynamoDB, layout: Layout
) -> None:
    server.admin.reset()
    nowhere = Table(server, layout)
    assert nowhere.process("drain")["error"] == TableNotFoundError.__name__
    assert ChangeLog(layout, "orders").open() is None


def test_a_re_created_table_is_a_gap_and_a_new_epoch(east: Table, layout: Layout) -> None:
    east.put(3)
    assert east.process("drain")["records"] == 3
    first = log_owner(layout)
    east.delete()
    east.create()
    east.put(2)
    while (found := east.process("drain"))["records"] != 2:
        assert "error" not in found
    assert found["gaps"] == 1
    assert east.process("apply")["rows"] == 5
    now = log_owner(layout)
    assert now.table_arn == first.table_arn
    assert now.table_id != first.table_id
    assert now.former_table_ids == (first.table_id,)


def log_owner(layout: Layout) -> SourceIdentity:
    log = ChangeLog(layout, "orders").open()
    assert log is not None
    assert log.owner is not None
    return log.owner


def drain(server: LocalDynamoDB, layout: Layout, region: str = EAST) -> int:
    settings = ConnectionSettings(
        region=region,
        endpoint_url=server.endpoint_url,
        aws_access_key_id="k",
        aws_secret_access_key="s",
    )
    return drain_once(DynamoDBSource("orders"), connect("orders", settings), layout).records


def test_the_identity_costs_no_commit(east: Table, server: LocalDynamoDB, layout: Layout) -> None:
    for batch in range(1, 4):
        east.put(1)
        drain(server, layout)
        assert DeltaTable(layout.change_log("orders")).version() == batch
    drain(server, layout)
    assert DeltaTable(layout.change_log("orders")).version() == 3


def test_a_log_of_an_earlier_version_takes_its_identity_once(
    east: Table,
    west: Table,
    server: LocalDynamoDB,
    west_server: LocalDynamoDB,
    layout: Layout,
) -> None:
    with logs_without_owner():
        east.put(1)
        drain(server, layout)
    log = ChangeLog(layout, "orders").open()
    assert log is not None
    assert log.owner is None
    with pytest.raises(SourceMismatchError, match=f"{EAST}.*{WEST}"):
        drain(west_server, layout, WEST)
    version = log.version
    drain(server, layout)
    assert log_owner(layout).region == EAST
    drain(server, layout)
    assert DeltaTable(log.uri).version() == version + 1


@pytest.mark.parametrize(
    ("recorded", "found", "expected"),
    [
        ({"table_arn": "a", "table_id": "1"}, {"table_arn": "a", "table_id": "1"}, "SAME"),
        ({"table_arn": "a", "table_id": "1"}, {"table_arn": "a", "table_id": "2"}, "RECREATED"),
        ({"table_arn": "a", "table_id": "1"}, {"table_arn": "a"}, "SAME"),
        ({"table_arn": "a"}, {"table_arn": "b"}, "ANOTHER"),
        ({"table_arn": "a", "endpoint": "x"}, {"table_arn": "a", "endpoint": "y"}, "SAME"),
        ({"endpoint": "x"}, {"endpoint": "x"}, "SAME"),
        ({"endpoint": "x"}, {"endpoint": "y"}, "ANOTHER"),
        ({"endpoint": "x", "table_arn": "a"}, {"endpoint": "y"}, "ANOTHER"),
        ({"table_arn": "a", "endpoint": "x"}, {"exists": False, "endpoint": "x"}, "SAME"),
        ({"table_arn": "a", "endpoint": "x"}, {"exists": False, "endpoint": "y"}, "ANOTHER"),
    ],
)
def test_the_arn_decides_then_the_endpoint(
    recorded: dict[str, Any], found: dict[str, Any], expected: str
) -> None:
    stored = SourceIdentity.from_json(SourceIdentity("orders", **recorded).to_json())
    assert relation(stored, SourceIdentity("orders", **found)) is Relation[expected]


def test_a_source_has_the_name_of_its_table_or_its_own() -> None:
    assert DynamoDBSource("orders.eu").name == "orders_eu"
    assert DynamoDBSource("orders.eu", name="eu_orders").name == "eu_orders"
    with pytest.raises(DefinitionError, match="name='eu/orders'"):
        DynamoDBSource("orders", name="eu/orders")
