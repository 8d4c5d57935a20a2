"""A user's code. It is only type-checked, by `make types`: nothing here runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from dagster import Definitions, EnvVar
from pydantic import BaseModel

from datazone_dagster import (
    CheckEvent,
    Dataset,
    DynamoDBStreamsResource,
    Input,
    Lakehouse,
    Output,
    Stream,
    Transform,
    build_definitions,
    slack_alert,
    transform,
)
from datazone_dagster.sources import DynamoDBSource

if TYPE_CHECKING:
    from datazone_dagster.frame import Frame

orders = DynamoDBSource("orders", region="us-west-2", start="latest", name="orders_west")


@transform(
    input_mapping={"changes": Input(Stream(source=orders)), "known": Input(Dataset("customers"))},
    output_mapping={
        "current": Output(
            Dataset(
                "orders",
                tags={"team": "orders"},
                mode="merge",
                partition_by="day",
                max_lag=timedelta(minutes=2),
            )
        ),
        "events": Output(Dataset("order_events", mode="append", tags=["orders"])),
    },
    owners=["team:orders"],
)
def split(changes: Frame, known: Frame) -> dict[str, Frame]:
    rows = changes.select("dynamodb.NewImage.id.S as id")
    return {"current": rows, "events": rows}


def called_as_the_plain_function(frame: Frame) -> Frame:
    return split(frame, known=frame)["current"]


def calling_it_wrongly_is_an_error(frame: Frame) -> None:
    split(frame)  # type: ignore[call-arg]  # the second parameter is missing


any_transform: Transform = split
name: str = split.name
tags: tuple[str, ...] = split.outputs["current"].tags


def tell(event: CheckEvent) -> str:
    return f"{event.asset} {event.severity}"


defs: Definitions = Definitions.merge(
    build_definitions(
        [split],
        lakehouse=Lakehouse(uri=EnvVar("LAKE")),
        dynamodb=DynamoDBStreamsResource(region_name="us-west-2"),
        on_check=tell,
    ),
    build_definitions(any_transform, on_check=slack_alert(EnvVar("SLACK_TOKEN"), "#alerts")),
)


class Order(BaseModel):
    id: str
    total: float | None


people = DynamoDBSource("people", mask={"email": "hash", "address.street": "drop"})
checked = Dataset(
    "orders",
    schema=Order,
    schema_policy={"total": "quarantine"},
    quarantine_threshold=5,
    quarantine_limit=0.5,
)
frozen = Dataset("orders", schema_policy="freeze")

wrong_mask = DynamoDBSource("people", mask={"email": "sha1"})  # type: ignore[dict-item]  # no kind
wrong_policy = Dataset("orders", schema_policy="strict")  # type: ignore[arg-type]  # not a policy
wrong = Dataset("orders", mode="upsert")  # type: ignore[arg-type]  # not a mode
