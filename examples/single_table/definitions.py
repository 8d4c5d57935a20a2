"""One DynamoDB table with items of four kinds, four datasets: the stream is read once."""

from datazone_dagster import Dataset, Input, Output, Stream, build_definitions, transform
from datazone_dagster.frame import Frame
from datazone_dagster.sources import DynamoDBSource

SHOP = DynamoDBSource("shop", region="eu-west-1")


@transform(
    input_mapping={"changes": Input(Stream(source=SHOP))},
    output_mapping={
        "customers": Output(Dataset("customers", description="A row per customer.")),
        "orders": Output(Dataset("orders", description="A row per order.")),
        "order_lines": Output(Dataset("order_lines", description="A row per line of an order.")),
        "products": Output(Dataset("products", mode="history", description="Prices over time.")),
    },
    on_error="quarantine",
)
def shop_tables(changes: Frame) -> dict[str, Frame]:
    """Tables of the shop, by the kind of item that the sort key begins with."""
    return {
        "customers": of_kind(changes, "PROFILE").select(
            "replace(dynamodb.Keys.pk.S, 'CUSTOMER#', '') as customer_id",
            "dynamodb.NewImage.name.S as name",
            "lower(dynamodb.NewImage.email.S) as email",
        ),
        "orders": of_kind(changes, "ORDER").select(
            "replace(dynamodb.Keys.sk.S, 'ORDER#', '') as order_id",
            "replace(dynamodb.Keys.pk.S, 'CUSTOMER#', '') as customer_id",
            "dynamodb.NewImage.status.S as status",
            "cast(dynamodb.NewImage.total.N as decimal(12, 2)) as total",
        ),
        "order_lines": of_kind(changes, "LINE").select(
            "replace(dynamodb.Keys.pk.S, 'ORDER#', '') as order_id",
            "cast(replace(dynamodb.Keys.sk.S, 'LINE#', '') as integer) as line",
            "dynamodb.NewImage.sku.S as sku",
            "cast(dynamodb.NewImage.quantity.N as integer) as quantity",
        ),
        "products": of_kind(changes, "PRODUCT").select(
            "replace(dynamodb.Keys.pk.S, 'PRODUCT#', '') as sku",
            "cast(dynamodb.NewImage.price.N as decimal(12, 2)) as price",
        ),
    }


def of_kind(changes: Frame, kind: str) -> Frame:
    """Changes of the items of one kind. The key decides: a delete has no new image."""
    return changes.filter(f"split_part(dynamodb.Keys.sk.S, '#', 1) = '{kind}'")


defs = build_definitions([shop_tables])
