from __future__ import annotations

import itertools
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from datazone_dagster.local import LocalDynamoDB
from datazone_dagster.local.live_orders import LiveOrders
from datazone_dagster.local.traffic import (
    STATUSES,
    OrderTraffic,
    create_orders_table,
    run_traffic,
)
from datazone_dagster.local.wire_client import WireClient
from tests.local.stream_reading import Clients, Table


def test_the_same_seed_gives_the_same_changes() -> None:
    first, second, other = (
        list(itertools.islice(OrderTraffic(seed=seed), 500)) for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other
    kinds = Counter(change.kind for change in first)
    assert all(kinds[kind] > 10 for kind in ("put", "update", "delete"))


def test_orders_go_through_their_states_in_order() -> None:
    states: dict[str, str] = {}
    for change in itertools.islice(OrderTraffic(), 2000):
        if change.kind == "put":
            assert change.order_id not in states
            states[change.order_id] = "placed"
        elif change.kind == "update":
            assert change.status is not None
            assert STATUSES.index(change.status) == STATUSES.index(states[change.order_id]) + 1
            states[change.order_id] = change.status
        else:
            assert states.pop(change.order_id) == "delivered"


def test_coupons_appear_after_a_while() -> None:
    puts = [
        (number, change.item)
        for number, change in enumerate(itertools.islice(OrderTraffic(coupon_after=100), 300))
        if change.item is not None
    ]
    with_coupon = [number for number, item in puts if "couponCode" in item]
    assert with_coupon
    assert min(with_coupon) >= 100
    for _, item in puts:
        total = sum(
            Decimal(line["M"]["price"]["N"]) * int(line["M"]["quantity"]["N"])
            for line in item["items"]["L"]
        )
        assert Decimal(item["orderTotal"]["N"]) == total


def test_traffic_reaches_the_table(own_server: LocalDynamoDB, own_clients: Clients) -> None:
    client = WireClient(own_server.endpoint_url, region="us-west-2")
    arn = create_orders_table(client)
    assert arn == create_orders_table(client)  # a second start finds the table
    assert ":us-west-2:" in arn
    assert run_traffic(client, OrderTraffic(), changes=120) == 120
    more = OrderTraffic(seed=9, first_order=5000)
    assert run_traffic(own_clients.dynamodb, more, changes=30) == 30
    records: list[Any] = Table("orders", arn, own_clients).records()
    assert len(records) == 150
    client.close()


def test_traffic_stops_on_request(own_server: LocalDynamoDB) -> None:
    client = WireClient(own_server.endpoint_url)
    create_orders_table(client)
    stop = threading.Event()
    stop.set()
    assert run_traffic(client, OrderTraffic(), changes_per_second=0.01, stop=stop.wait) == 1
    client.close()


def test_live_orders_go_on_after_those_of_an_earlier_start(tmp_path: Path) -> None:
    with LocalDynamoDB(data_dir=tmp_path, shards=1) as server:
        client = WireClient(server.endpoint_url)
        earlier: set[int] = set()
        for _ in range(2):
            live = LiveOrders.in_new_table(server.endpoint_url, changes_per_second=1000)
            assert live.traffic.first_order > max(earlier, default=0)
            live.start()
            while live.count < 30:
                threading.Event().wait(0.01)
            live.stop()
            items = client.call("Scan", TableName="orders")["Items"]
            numbers = {int(item["orderId"]["S"].removeprefix("order-")) for item in items}
            assert len(numbers) > len(earlier)
            earlier = numbers
        server.kill()
        gone = LiveOrders(server.endpoint_url, OrderTraffic(), changes_per_second=1000)
        gone.start()  # a thread that raised would fail this test
        gone.stop()
        assert gone.count == 0
