"""A run in a process of its own, so that its peak is that of the run and nothing else.

python -m tests.application.memory_child <lake> <way> <memory budget>
"""

from __future__ import annotations

import sys

from datazone_dagster import Dataset, Input, Output, Stream, transform
from datazone_dagster.application.sizes import ApplySettings
from datazone_dagster.frame.frame import Frame
from datazone_dagster.memory import peak_bytes
from datazone_dagster.model.layout import Layout
from datazone_dagster.pipeline import apply_transform
from datazone_dagster.sources import DynamoDBSource

STREAM = {"orders": Input(Stream(source=DynamoDBSource(table_name="orders", region="eu-west-1")))}


def output(name: str) -> dict[str, Output]:
    return {"orders": Output(Dataset(id=name))}


@transform(input_mapping=STREAM, output_mapping=output("row_wise"))
def row_wise(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage.total.N as total")


@transform(input_mapping=STREAM, output_mapping=output("images"))
def images(orders: Frame) -> Frame:
    return orders.select("dynamodb.Keys.id.S as id", "dynamodb.NewImage as item")


@transform(input_mapping=STREAM, output_mapping=output("whole"))
def whole(orders: Frame) -> Frame:
    assert orders.arrow().num_rows
    return images.function(orders)


WAYS = {"row_wise": row_wise, "images": images, "whole": whole}

if __name__ == "__main__":
    lake, way, budget = sys.argv[1:]
    settings = ApplySettings(memory_budget=int(budget))
    report = apply_transform(WAYS[way], Layout(lake), settings=settings)[way]
    sys.stdout.write(f"{report.records} {report.row_count} {report.chunks} {peak_bytes()}")
