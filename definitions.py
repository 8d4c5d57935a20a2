"""The published example: orders that stream from DynamoDB into a Delta table.

`make demo` opens it on a local DynamoDB. For your own table, set the name and the region, and
give AWS credentials as for any AWS tool.
"""

from datazone_dagster import Dataset, Input, Output, Stream, build_definitions, transform
from datazone_dagster.sources import DynamoDBSource


@transform(
    input_mapping={
        "orders_stream": Input(
            Stream(
                source=DynamoDBSource(table_name="orders", region="us-west-2", stream_enabled=True)
            )
        )
    },
    output_mapping={
        "processed_orders": Output(Dataset(id="processed_orders", tags=["orders", "real-time"]))
    },
)
def process_orders_stream(orders_stream):  # type: ignore[no-untyped-def]  # as published
    return orders_stream.select(
        "eventID",
        "eventName",
        "dynamodb.NewImage.orderId.S as order_id",
        "dynamodb.NewImage.customerEmail.S as customer_email",
        "dynamodb.NewImage.orderTotal.N as order_total",
        "dynamodb.NewImage.status.S as status",
    )


defs = build_definitions([process_orders_stream])
