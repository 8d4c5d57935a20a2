"""Live orders for the demo and for tests: the same seed gives the same changes.

The table `orders` has the key `orderId`. An order is placed, paid, shipped, delivered; some
delivered orders are deleted. After a while orders have a `couponCode`, a new attribute.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

from datazone_dagster.local.service_errors import ServiceError
from datazone_dagster.local.values import Item
from datazone_dagster.local.wire_client import WireClient

TABLE = "orders"
STATUSES = ("placed", "paid", "shipped", "delivered")
_PRODUCTS = (("mug", 1290), ("lamp", 4999), ("chair", 12950), ("desk", 34900), ("pen", 149))
_NAMES = ("ada", "grace", "edsger", "barbara", "donald", "leslie", "frances", "tony")


class OrderChange(NamedTuple):
    """One write. `item` is the full order for a put, `status` the new status for an update."""

    kind: Literal["put", "update", "delete"]
    order_id: str
    item: Item | None = None
    status: str | None = None


class ItemClient(Protocol):
    """DynamoDB client methods that the traffic calls; boto3's client and `WireClient` have them."""

    def put_item(self, **request: Any) -> Any:
        """`PutItem`."""
        ...

    def update_item(self, **request: Any) -> Any:
        """`UpdateItem`."""
        ...

    def delete_item(self, **request: Any) -> Any:
        """`DeleteItem`."""
        ...


@dataclass(frozen=True)
class OrderTraffic:
    """Endless sequence of order changes; the same arguments give the same sequence.

    Args:
        seed: Seed of every random choice.
        coupon_after: Number of changes before the first order with a `couponCode`.
        first_order: Number of the first order; a second run over an existing table starts after
            the orders of the first run.
    """

    seed: int = 7
    coupon_after: int = 200
    first_order: int = 1

    def __iter__(self) -> Iterator[OrderChange]:
        """Yield the changes, from the beginning."""
        rng = random.Random(self.seed)
        underway: list[tuple[str, int]] = []
        delivered: list[str] = []
        numbers = itertools.count(self.first_order)
        for count in itertools.count():
            chance = rng.random()
            if chance < 0.08 and delivered:
                order_id = delivered.pop(rng.randrange(len(delivered)))
                yield OrderChange("delete", order_id)
            elif chance < 0.6 and underway:
                index = rng.randrange(len(underway))
                order_id, status = underway[index][0], underway[index][1] + 1
                yield OrderChange("update", order_id, status=STATUSES[status])
                if STATUSES[status] == "delivered":
                    underway[index] = underway[-1]
                    underway.pop()
                    delivered.append(order_id)
                else:
                    underway[index] = (order_id, status)
            else:
                order_id = f"order-{next(numbers):07d}"
                underway.append((order_id, 0))
                item = _order(rng, order_id, coupons=count >= self.coupon_after)
                yield OrderChange("put", order_id, item=item)


def _order(rng: random.Random, order_id: str, *, coupons: bool) -> Item:
    lines, total_cents = [], 0
    for name, cents in rng.sample(_PRODUCTS, rng.randint(1, 3)):
        quantity = rng.randint(1, 4)
        total_cents += cents * quantity
        lines.append(
            {
                "M": {
                    "sku": {"S": name},
                    "quantity": {"N": str(quantity)},
                    "price": {"N": _money(cents)},
                }
            }
        )
    item: Item = {
        "orderId": {"S": order_id},
        "customerEmail": {"S": f"{rng.choice(_NAMES)}{rng.randint(1, 99)}@example.com"},
        "orderTotal": {"N": _money(total_cents)},
        "status": {"S": STATUSES[0]},
        "items": {"L": lines},
    }
    if coupons and rng.random() < 0.5:
        item["couponCode"] = {"S": rng.choice(("WELCOME10", "SPRING", "FREESHIP"))}
    return item


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def write_change(client: ItemClient, change: OrderChange, table: str = TABLE) -> None:
    """Carry out one change."""
    key = {"orderId": {"S": change.order_id}}
    if change.kind == "put":
        client.put_item(TableName=table, Item=change.item)
    elif change.kind == "delete":
        client.delete_item(TableName=table, Key=key)
    else:
        client.update_item(
            TableName=table,
            Key=key,
            UpdateExpression="SET #status = :status",
            ExpressionAttributeNames={"#status": "status"},
            ExpressionAttributeValues={":status": {"S": change.status}},
        )


def run_traffic(
    client: ItemClient,
    traffic: OrderTraffic,
    *,
    changes: int | None = None,
    changes_per_second: float | None = None,
    stop: Callable[[float], bool] = lambda _seconds: False,
    table: str = TABLE,
) -> int:
    """Write changes one after the other and return their number.

    Args:
        client: boto3's `dynamodb` client or a `WireClient`.
        traffic: Changes to write.
        changes: Number of changes; None means until stopped.
        changes_per_second: Pace; None means as fast as the server takes the changes.
        stop: Function that waits the given seconds and returns whether to stop;
            `threading.Event().wait` fits.
        table: Name of the table to write to.
    """
    pause_seconds = 0.0 if changes_per_second is None else 1.0 / changes_per_second
    written = 0
    for change in itertools.islice(traffic, changes):
        write_change(client, change, table)
        written += 1
        if stop(pause_seconds):
            break
    return written


_STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


def create_orders_table(client: WireClient, table: str = TABLE, *, with_stream: bool = True) -> str:
    """Create the table unless it exists, and return its stream's ARN; empty without a stream."""
    try:
        description = client.call(
            "CreateTable",
            TableName=table,
            KeySchema=[{"AttributeName": "orderId", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "orderId", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            **({"StreamSpecification": _STREAM} if with_stream else {}),
        )["TableDescription"]
    except ServiceError as error:
        if error.code != "ResourceInUseException":
            raise
        description = client.call("DescribeTable", TableName=table)["Table"]
    return str(description.get("LatestStreamArn", ""))


def enable_stream(client: WireClient, table: str = TABLE) -> str:
    """Enable the stream of a table that has none, and return its ARN."""
    answer = client.call("UpdateTable", TableName=table, StreamSpecification=_STREAM)
    return str(answer["TableDescription"]["LatestStreamArn"])
